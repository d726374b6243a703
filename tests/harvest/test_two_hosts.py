"""Trainers of two processes on two hosts: one harvest, or the same reason on both for there being none."""

import signal
import time

import pytest

import lit_attr
from benchmarks.workers import free_port
from lit_attr.parts.status import status
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tests.harvest.hosts import Hosts, reason_to_skip
from tests.harvest.runs import assert_same, small_run, work
from tests.toys import write_tokens

pytestmark = [pytest.mark.hosts, pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip()))]
CONTINUES = "; the same command continues from what is committed"
# Seconds, for which `lit-attr` waits in tests in which it must not wait in vain, and in which it must.
LONG, SHORT = 24, 6


class Pair:
    """`lit-attr predict` as one trainer on two hosts; the clocks of the second are an hour ahead."""

    def __init__(self, hosts, folder):
        self.hosts, self.folder = hosts, folder
        self.hosts.both[1].seconds_ahead = 3600
        self.run, self.tokens = small_run(folder / "run"), write_tokens(folder / "tokens.npy", n_rows=13)
        self.out = folder / "found"
        self.harvest = self.out / "dataset_attributions" / "run" / "da-one"

    def start(self, *of_second, patience=LONG, pause=0.0, second_calls="node0", faults=(None, None)):
        """Both commands, with a pause before each batch; the second with options of its own."""
        port, commands = free_port(), []
        for host, options, first in zip(self.hosts.both, ((), of_second), ("node0", second_calls), strict=True):
            settings = {
                "model.run": self.run, "data.tokens": self.tokens, "data.batch_size": 2, "writer.out_dir": self.out,
                "writer.subrun_id": "da-one", "writer.commit_batches": 1, "writer.patience_minutes": patience / 60,
                "trainer.accelerator": "cpu", "trainer.devices": 1, "trainer.num_nodes": 2, "trainer.strategy": "ddp",
            }  # fmt: skip
            words = [f"--{name}={value}" for name, value in settings.items()]
            names = {"MASTER_ADDR": first, "MASTER_PORT": str(port), "NODE_RANK": str(host.number)}
            log = self.folder / f"log_{host.number}"
            commands.append(host.start(["predict", *words, *options], log, names, pause, faults[host.number]))
        return commands


@pytest.fixture
def pair(tmp_path):
    with Hosts(tmp_path) as hosts:
        yield Pair(hosts, tmp_path)


def end(commands):
    """Exit codes and last words of both."""
    codes = [command.end() for command in commands]
    said = [command.said for command in commands]
    assert "Traceback" not in "".join(said), said
    return codes, [text.partition("lit-attr: error: ")[2].strip() for text in said]


def test_killed_cut_off_for_some_time_stopped_and_equal(pair, tmp_path):
    """Clocks are apart all the while, and what takes long is waited for."""
    commands = pair.start(pause=0.7, patience=10, faults=("targets wait", None))
    commands[0].until("test: batch 1")
    commands[1].signal(signal.SIGKILL)
    killed = time.monotonic()
    codes, errors = end(commands)
    assert codes == [2, 128 + signal.SIGKILL]
    assert errors[0] == f"process 1 on node1 has ended without a word: its connection was closed{CONTINUES}"
    assert time.monotonic() - killed < 8
    assert status(pair.harvest).n_done == 2

    commands = pair.start(pause=2.0, patience=2 * SHORT)
    commands[0].until("test: batch 0")
    pair.hosts.unplug()
    commands[0].until("no answer from process 1 on node1 for 6 s; after 12 s this process ends")
    pair.hosts.plug()
    for number, command in enumerate(commands):
        command.until(f"process {1 - number} on node{1 - number} is heard again")
    for number, seconds in ((signal.SIGSTOP, 2.5 * SHORT), (signal.SIGCONT, 0)):
        for command in commands:
            command.signal(number)
        time.sleep(seconds)
    assert end(commands) == ([0, 0], ["", ""])
    assert "continuing, with 2 of 7 batches done" in commands[0].said
    found = DatasetAttributionStorage.load(pair.harvest / "dataset_attributions.pt")
    alone = work(pair.run, pair.tokens, tmp_path / "alone").path
    assert_same(found, DatasetAttributionStorage.load(alone), 1e-6)
    assert found.provenance["coverage"]["complete"]


def test_cut_off_for_good(pair):
    commands = pair.start(pause=0.7, patience=SHORT)
    commands[0].until("test: batch 1")
    pair.hosts.unplug()
    cut = time.monotonic()
    codes, errors = end(commands)
    assert codes == [2, 2]
    for number in (0, 1):
        assert errors[1 - number] == f"no answer from process {number} on node{number} for {SHORT} s{CONTINUES}"
        assert "for 2 s; after 6 s this process ends" in commands[number].said
    assert SHORT <= time.monotonic() - cut < SHORT + 20


def test_hosts_that_do_not_meet(pair):
    begin = time.monotonic()
    codes, errors = end(pair.start(patience=SHORT, second_calls="nowhere"))
    assert codes == [2, 2]
    assert "2 processes of 2 machines meet at node0, port" in errors[0]
    assert "1/2 clients joined" in errors[0]
    assert errors[1].startswith("node1 could not resolve 'nowhere', the host of the first process, for 6 s")
    assert time.monotonic() - begin < SHORT + 15

    commands = pair.start(patience=2 * SHORT, second_calls="nowhere")
    for command in commands:
        command.until("waiting until 2 processes of 2 machines meet")
        command.signal(signal.SIGTERM)
    told = time.monotonic()
    codes, errors = end(commands)
    assert codes == [2, 2]
    assert all(error.startswith("stopped by SIGTERM before anything new was committed") for error in errors)
    assert time.monotonic() - told < 5


def test_a_host_that_is_lost_in_a_conversation_of_lightning(pair):
    """All wait there for those that prepare data."""
    commands = pair.start(faults=(None, "data waits"))
    commands[1].until("test: preparing")
    commands[1].signal(signal.SIGKILL)
    codes, errors = end(commands)
    assert codes == [2, 128 + signal.SIGKILL]
    assert errors[0] == f"process 1 on node1 has ended without a word: its connection was closed{CONTINUES}"

    commands = pair.start(faults=(None, "data breaks"))
    assert [command.end() for command in commands] == [2, 1]
    *_, error = commands[0].said.splitlines()
    seen = "[Errno 122] Disk quota exceeded: 'token_cache'"
    assert error == f"lit-attr: error: process 1 on node1 has ended: {seen}{CONTINUES}"


def test_hosts_with_something_of_their_own(pair, tmp_path):
    """Another version, other settings and data of each kind, and a run of which one host has not all files."""
    other = write_tokens(tmp_path / "other.npy", n_rows=13, seed=1)
    incomplete = tmp_path / "incomplete" / "run"
    small_run(incomplete)
    next(incomplete.glob("model*.pt*")).unlink()
    for options, words in (
        ([], "version of lit_attr: process 0 has '"),
        (["--data.batch_size=3"], "batch_size: process 0 has 2, process 1 has 3"),
        ([f"--data.tokens={other}"], "data_digest: process 0 has"),
        (["--trainer.precision=64-true"], "precision: process 0 has '32-true', process 1 has '64-true'"),
        ([f"--model.run={incomplete}"], str(incomplete)),
        ([f"--data.tokens={tmp_path / 'nothing.npy'}"], "nothing.npy"),
    ):
        pair.hosts.both[1].version = lit_attr.__version__ if options else "0.0.9"
        codes, errors = end(pair.start(*options))
        assert codes == [2, 2]
        assert errors[0] == errors[1]
        assert words in errors[0]
    assert not pair.harvest.exists()
