import gc
import os
import subprocess
import sys

import pytest
import torch

from lit_attr.errors import ConfigurationError
from lit_attr.harvest.memory import (
    PeakMemory,
    _free_in_groups,
    free_bytes,
    memory_limit,
    rows_that_fit,
)
from tests.toys import write_run, write_tokens

KB = 1000


def test_counts_what_lives_at_once():
    with PeakMemory() as memory:
        a = torch.zeros(250 * KB)  # 1 MB
        b = a + 1
        del a
        gc.collect()
        c = b * 2
    assert memory.peak == 2_000 * KB
    assert memory.live == 2_000 * KB
    assert c.numel() == b.numel()


def test_views_and_in_place_results_are_not_counted_twice():
    with PeakMemory() as memory:
        a = torch.zeros(250 * KB)
        a.add_(1).view(-1, 2)[0].mul_(2)
    assert memory.peak == 1_000 * KB


def test_what_a_graph_keeps_is_counted():
    x = torch.zeros(250 * KB, requires_grad=True)
    with PeakMemory() as memory:
        y = x.exp().exp().sum()
        kept = memory.live
        y.backward()
    assert 2_000 * KB <= kept < 2_100 * KB


def step(per_row, fixed=0):
    def run(tokens):
        keep = torch.zeros(fixed, dtype=torch.uint8), torch.zeros(len(tokens) * per_row, dtype=torch.uint8)
        assert keep

    return run


@pytest.mark.parametrize(("limit", "expected"), [(10_000, 9), (2_000, 1), (3_500, 2), (1_000_000, 32)])
def test_rows_that_fit(limit, expected):
    assert (
        rows_that_fit(step(1_000 * KB, fixed=1_000 * KB), torch.zeros(32, 4, dtype=torch.int64), float(limit * KB))
        == expected
    )


def test_a_batch_of_one_row():
    assert rows_that_fit(step(KB), torch.zeros(1, 4, dtype=torch.int64), 10.0 * KB) == 1


def test_not_even_one_row_fits():
    with pytest.raises(ConfigurationError, match=r"one sequence of 4 tokens needs 0\.001 GB, but only 0\.0001 GB"):
        rows_that_fit(step(1_000 * KB), torch.zeros(2, 4, dtype=torch.int64), 100.0 * KB)


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (
            "0::/job/step\n",
            {"job/memory.max": "1000", "job/memory.current": "400", "job/step/memory.max": "max"},
            [600],
        ),
        ("0::/\n", {}, []),
        (
            "5:cpu:/x\n4:memory:/job\n",
            {"memory/job/memory.limit_in_bytes": "1000", "memory/job/memory.usage_in_bytes": "1200"},
            [0],
        ),
    ],
)
def test_limits_of_the_job_count(tmp_path, membership, files, expected):
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text + "\n")
    assert list(_free_in_groups(tmp_path / "cgroup", tmp_path / "fs")) == expected


def test_limit_is_the_users_or_a_share_of_what_is_free():
    cpu = torch.device("cpu")
    assert memory_limit(2.5, cpu, 4) == 2.5e9
    assert memory_limit(None, cpu, 2) == pytest.approx(0.35 * free_bytes(cpu), rel=0.2)


@pytest.mark.slow
def test_the_limit_holds_for_the_process(tmp_path):
    """One batch of 64 rows needs several times the limit; the process stays within it."""
    run = write_run(
        tmp_path / "run", model_options={"n_embd": 64, "n_intermediate": 256, "block_size": 64, "n_ctx": 64}
    )
    tokens = write_tokens(tmp_path / "tokens.npy", 64, seq_len=64)
    script = f"""
import resource
from lit_attr.harvest import harvester as module
from lit_attr.harvest.harvester import AttributionHarvester
from tests.harvest.runs import harvest
from pathlib import Path

class Watched(AttributionHarvester):
    def on_predict_start(self):
        super().on_predict_start()
        self.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

module.keep_freed_memory = lambda: None
harvester = Watched({str(run)!r}, engine="autograd", memory_gb=0.05)
harvest(harvester, Path({str(tokens)!r}), Path({str(tmp_path)!r}), batch_size=64, n_batches=1)
print(harvester._rows_at_once, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - harvester.before) / 1e6)
"""
    # Blocks of this size glibc keeps when they are freed, up to 60 % on top; here each is to go back at once.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    rows, growth_gb = done.stdout.split()
    assert int(rows) < 32
    assert float(growth_gb) < 0.08
