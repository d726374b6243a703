"""Plans against what harvests of the same runs have allocated and written."""

import pytest
import torch

from lit_attr.cli.main import main
from lit_attr.errors import ConfigurationError
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.needs import Live, SumsBytes
from lit_attr.harvest.shape import Shape
from lit_attr.harvest.sources import ModelSource
from lit_attr.harvest.targets import TargetRule
from lit_attr.planning.counts import Counted
from lit_attr.planning.flops import Density
from lit_attr.planning.grid import Machine, dealt
from lit_attr.planning.live import LiveEstimate
from lit_attr.planning.plan import Load, make_plan
from lit_attr.planning.report import lines
from lit_attr.planning.speeds import gpu_speed
from lit_attr.planning.worker import workspace_needed
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.file_content import file_keys
from lit_attr.storage.fill import leaves
from lit_attr.topology.address import EMBED
from tests.huggingface_toys import huggingface_target
from tests.planning.examples import SPEED, shape_of
from tests.sums import full_sums
from tests.toys import write_run, write_tokens


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("toy") / "run")


def plan_of(run, estimate=None, settings=None, host_bytes=1e9, **machine):
    harvester = AttributionHarvester(run, **{"workspace_mb": 64, **(settings or {})})
    shape = shape_of(run)
    estimate = estimate or LiveEstimate(Live.all(shape.topology), "everything")
    load = Load(1e6, 8, 0.5)
    given = Machine(**{"device_bytes": None, "host_bytes": host_bytes, "n_workers": 1, "speed": SPEED, **machine})
    return make_plan(harvester, shape, estimate, load, given, keep=2)


@pytest.mark.parametrize("metrics", ["attr", "both"])
def test_a_plan_is_what_a_harvest_allocates_and_writes(toy, tmp_path, metrics):
    out, tokens = tmp_path / "out", write_tokens(tmp_path / "t.npy", 4)
    arguments = ["predict", "--model.run", str(toy), "--data.tokens", str(tokens), "--writer.out_dir", str(out)]
    arguments += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--model.metrics", metrics]
    assert main(arguments) == 0
    (path,) = out.rglob("dataset_attributions.pt")
    stored = DatasetAttributionStorage.load(path)
    shape = shape_of(toy)
    estimate = LiveEstimate.by_result(shape, stored, "it")
    plan = plan_of(toy, estimate, {"metrics": metrics})
    assert sum(plan.n_components.values()) == sum(len(sums) for sums in stored.ci_sum.values())
    nbytes = sum(tensor.nbytes for _, tensor in leaves(file_keys(stored)))
    assert plan.disk.dense == pytest.approx(nbytes, abs=16)
    assert plan.disk.compact <= plan.disk.dense
    layout = estimate.live.layout(shape.topology, metrics, torch.float32)
    sums = SumsBytes.of(layout, estimate.live, torch.float32, torch.device("cpu"))
    assert sums.totals == plan.disk.parts
    assert plan.grids[0].host_bytes == plan.worker.certain + sums.totals + sums.recent


def test_what_lives(toy, tmp_path):
    """Of a share, targets are all components unless the settings say otherwise; of a result, what it says."""
    shape = shape_of(toy)
    counts = shape.topology.n_components
    everything = TargetRule(None, None, 0.0)
    found = LiveEstimate.by_share(shape, 0.3, everything)
    assert found.live.targets == counts
    assert found.live.sources["0.mlp.up"] == 1 == -(-counts["0.mlp.up"] * 3 // 10)
    assert found.live.sources[EMBED] == shape.topology.vocab_size
    assert LiveEstimate.by_share(shape, 0.3, TargetRule(None, 5, 0.0)).live.targets["0.mlp.up"] == 1
    assert LiveEstimate.by_share(shape, None, everything).live == Live.all(shape.topology)
    with pytest.raises(ConfigurationError, match=r"--alive_share must be above 0 and at most 1, found 1\.5"):
        LiveEstimate.by_share(shape, 1.5, everything)


def test_target_shards_hold_all_sums_together(toy):
    """The largest holds its part, normalisers in all of them; more shards never need more."""
    topology = shape_of(toy).topology
    live = Live.all(topology)
    shards = dealt(live.layout(topology, "both", None), live, torch.device("cuda"))
    sizes = [some.sums.recent for some in shards]
    assert sizes[0] == full_sums(topology, torch.float32).nbytes
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] / 2 < sizes[1] < 0.75 * sizes[0]
    assert shards[-1].n_shards == 32  # of 9 inputs and 66 targets


def test_proposal(toy):
    """The first grid that fits: fewest target shards, and as many data shards as workers are left."""
    plan = plan_of(toy)
    one = plan.grids[0]
    assert (plan.proposal, one.data_shards, one.rounds) == (one, 1, 1)
    beside = plan.worker.certain
    recent = plan_of(toy, device_bytes=1e12).grids[0].device_bytes - beside
    tight = plan_of(toy, device_bytes=(beside + recent / 1.5) / 0.9, n_workers=8)
    grid = tight.proposal
    assert grid.target_shards > 1
    assert grid.target_shards * grid.data_shards == 8
    assert not any(g.fits for g in tight.grids[: tight.grids.index(grid)])
    turns = next(g for g in tight.grids if g.target_shards == 32)
    assert (turns.data_shards, turns.rounds) == (1, 4)
    text = "\n".join(lines(tight))
    assert f"proposal     {grid.data_shards} x {grid.target_shards} workers, --data.target_shards" in text


def test_nothing_fits(toy):
    plan = plan_of(toy, host_bytes=1000.0, device_bytes=1e6)
    assert plan.proposal is None
    text = "\n".join(lines(plan))
    assert "proposal     none: a worker needs 67" in text
    assert "of a device's 1 MB" in text
    assert "of a host's 1 kB" in text
    assert "the ways out: fewer matrices" in text


@pytest.mark.slow
def test_time_falls_with_shards_and_with_the_share_of_attr_abs(toy):
    whole, some = plan_of(toy), plan_of(toy, settings={"abs_share": 0.25})
    hours = [plan.grids[0].hours for plan in (whole, some)]
    assert hours[0]["attr"] == hours[1]["attr"]
    more = [h["both"] - h["attr"] for h in hours]
    assert more[1] == pytest.approx(more[0] / 4)
    # With a rate of 10^9 operations, and as many bytes, in a second.
    assert whole.gflops["both"] * 1e6 / 3600 < hours[0]["both"] < 3 * whole.gflops["both"] * 1e6 / 3600
    eight = plan_of(toy, n_workers=8).grids
    assert eight[0].hours["both"] == pytest.approx(hours[0]["both"] / 8)
    # Shards pay the forwards again.
    assert eight[0].hours["both"] < eight[3].hours["both"] < hours[0]["both"]


def test_workspace_is_the_least_that_holds_a_sequence(toy):
    shape = shape_of("docs/scale/gpt2")
    live = LiveEstimate.by_share(shape, 0.1, TargetRule(None, 1, 0.0)).live
    found = workspace_needed(shape, live, Density(0.01, 1024, 1))
    assert 1 << 28 < found < 1 << 30
    assert found < workspace_needed(shape, live, Density(0.02, 1024, 1))
    assert workspace_needed(shape_of(toy), Live.all(shape_of(toy).topology), Density(1.0, 8, 1)) == 1 << 26


def test_components_by_number(tmp_path):
    huggingface_target("llama", torch.float32).save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()

    def counted(*words):
        return Shape.of(ModelSource(str(tmp_path / "m"), Counted.parse(words), None)).topology.n_components

    assert set(counted("5").values()) == {5}
    attention = dict.fromkeys(("0.attn.q", "0.attn.k", "0.attn.v", "0.attn.o"), 7)
    assert counted("0.attn.*=7", "*.glu.down=9") == {**attention, "0.glu.down": 9, "1.glu.down": 9}
    for word in ("many", "*.mlp=0", "x="):
        with pytest.raises(ConfigurationError, match=r"expected a number, or PATTERN=NUMBER, found"):
            Counted.parse([word])


def test_devices():
    speed, memory = gpu_speed("H100", 0.5, mixed=False)
    assert (set(speed.flops.values()), memory) == ({33.5e12}, 80e9)
    assert "an estimate: 50% of the 67 TFLOP/s" in speed.origin
    mixed, _ = gpu_speed("H100", 0.5, mixed=True)
    assert mixed.flops == {**speed.flops, "forwards": 494.5e12}
    with pytest.raises(ConfigurationError, match="unknown device 'H1': known are A100, H100"):
        gpu_speed("H1", 0.5, mixed=False)
