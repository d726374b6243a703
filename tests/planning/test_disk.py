"""Bytes that are planned are those that are written."""

import pytest

from lit_attr.harvest.needs import Live
from lit_attr.planning.disk import DiskBytes
from lit_attr.query.strongest_build import write_strongest
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.strongest_file import StrongestFile
from tests.storage.examples import TOPOLOGY, attr_alone, random_storage


@pytest.mark.parametrize("metrics", ["both", "attr"])
@pytest.mark.parametrize("keep", [1, 3, 64])
def test_strongest_edges(tmp_path, metrics, keep):
    storage = random_storage() if metrics == "both" else attr_alone()
    sections = StrongestFile(write_strongest(Blocks(storage), tmp_path / "x.strongest", keep)).sections
    written = sum(section.nbytes for section in sections.values())
    written += 8 * sum(section.n_records for name, section in sections.items() if name != "pairs")
    normalisers = [*storage.ci_sum.values(), *storage.component_act_sq_sum.values()]
    written += sum(t.nbytes // t.itemsize * 4 for t in [*normalisers, storage.logit_sq_sum])
    written += storage.embed_token_count.nbytes
    assert DiskBytes.of(TOPOLOGY, Live.all(TOPOLOGY), metrics, None, keep).strongest == written
