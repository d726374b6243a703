"""Files in memory answer as those on a disk do."""

import json
import random
from dataclasses import replace

import pytest
import torch

from lit_attr.errors import StorageError
from lit_attr.files.identity import FileIdentity
from lit_attr.files.json_file import parse_object, publish_json, read_json
from lit_attr.files.publish import keep, make_folder
from lit_attr.files.seal import check_seal
from lit_attr.parts.ledger import Ledger, read_ledger
from lit_attr.parts.part import read_part, write_part
from tests.parts.harvests import sums_of
from tests.protocol.explore import Search
from tests.protocol.files import ROOT, PartContent
from tests.protocol.replay import on_model_files
from tests.protocol.scenarios import SMALL
from tests.storage.examples import TOPOLOGY
from tests.sums import layout_of


class OnDisk:
    """A folder in which the steps of processes are taken by the file layer, with real sums."""

    def __init__(self, folder):
        self.folder = folder
        self.identities = {}
        make_folder(folder / "worker_states")

    def take(self, step):
        path = self.folder / step.name
        try:
            return getattr(self, step.kind)(path, step.argument), None
        except (OSError, StorageError) as error:
            return None, type(error)

    def list(self, folder, pattern):
        return tuple(sorted(path.name for path in folder.glob(pattern or "*") if path.is_file()))

    def exists(self, path, _):
        return path.exists()

    def identity(self, path, _):
        return FileIdentity.of(path)

    def read(self, path, _):
        if path.suffix == ".json":
            return read_json(path)
        sums, ledger = read_part(path, layout_of(TOPOLOGY))
        check_seal(path)
        assert read_ledger(path) == ledger
        return sums, ledger

    def link(self, path, name):
        keep(path, self.folder / name)

    def create(self, path, text):
        publish_json(path, json.loads(text), replace=False)

    def replace(self, path, content):
        sums, ledger = on_disk(content)
        write_part(path, sums, ledger)

    def unlink(self, path, _):
        path.unlink()


def on_disk(content):
    """The sums and the ledger that stand for a part in memory."""
    sums = sums_of(content.numbers)
    return sums, replace(parse_object(content.ledger, Ledger, ROOT), n_tokens=int(sums.n_tokens))


def assert_equal(answer, value, identities):
    if isinstance(value, PartContent):
        (sums, ledger), (right, expected) = answer, on_disk(value)
        assert ledger == expected
        assert all(torch.equal(one, two) for (_, one), (_, two) in zip(sums.named(), right.named(), strict=True))
    elif isinstance(answer, FileIdentity):
        assert identities.setdefault(value, answer) == answer
        assert len({*identities.values()}) == len(identities)
    elif isinstance(answer, dict):
        assert answer == json.loads(value)
    else:
        assert answer == value


@pytest.mark.slow
@pytest.mark.parametrize("name", ["more, both at once", "merging some meanwhile", "a deleted part"])
def test_random_orders_of_steps_have_the_same_answers_on_a_disk(tmp_path, name):
    chance, n_taken = random.Random(name), 0
    search = Search(SMALL[name])
    for walk in range(5):
        disk = OnDisk(tmp_path / str(walk))
        with on_model_files(SMALL[name].behaviour):
            steps = list(search.walk(chance.choice))  # the file layer is itself again afterwards
        for step, outcome in steps:
            if step.kind in ("lock", "unlock", "compute"):
                continue
            answer, error = disk.take(step)
            expected = outcome.error
            if step.kind == "read" and expected is FileNotFoundError:
                expected = StorageError  # the file layer's own word for it
            assert error is expected, (step, error)
            if error is None:
                assert_equal(answer, outcome.value, disk.identities)
            n_taken += 1
    assert n_taken > 100
