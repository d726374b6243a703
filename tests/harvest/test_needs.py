"""What is known of sizes before anything is loaded, against what is allocated."""

import logging
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from lit_attr.decomposition.untrained import Decomposition, Svd
from lit_attr.errors import ConfigurationError, ShapesUnknownError
from lit_attr.harvest import needs
from lit_attr.harvest.accumulator import AttributionSums
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.needs import Live, Site, SumsBytes, check_fits, sums_nbytes, weights_nbytes
from lit_attr.harvest.shape import Shape
from lit_attr.harvest.sources import ModelSource
from tests.harvest.runs import harvest, work
from tests.huggingface_toys import huggingface_target
from tests.sums import full_sums
from tests.toys import write_run, write_tokens

CPU = torch.device("cpu")


def source_of(name, folder):
    if name == "demo":
        return ModelSource("demo", None, None)
    if name == "toy":
        return ModelSource(write_run(folder / "run"), None, None)
    huggingface_target(name, torch.float32).save_pretrained(folder / "model")
    return ModelSource(str(folder / "model"), Svd(), None)


@pytest.mark.parametrize("name", ["demo", "toy", "gpt2", "mistral, window", "gpt-neox"])
def test_shapes_are_those_of_the_loaded_model_to_the_byte(name, tmp_path):
    source = source_of(name, tmp_path)
    shape, model = Shape.of(source), source.load().model
    assert all(tensor.is_meta for tensor in shape.model.state_dict().values())
    shapes = [{name: (t.shape, t.dtype) for name, t in m.state_dict().items()} for m in (shape.model, model)]
    assert shapes[0] == shapes[1]
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in model.state_dict().values()}
    assert sum(weights_nbytes(shape.model).values()) == sum(storages.values())


def test_sums_are_counted_as_they_are_allocated(tmp_path):
    topology = Shape.of(source_of("toy", tmp_path)).topology
    everything = Live.all(topology)
    for metrics, squares_dtype in product(("attr", "both"), (None, torch.float32, torch.float64)):
        allocated = full_sums(topology, torch.float32, metrics=metrics, squares_dtype=squares_dtype).nbytes
        layout = everything.layout(topology, metrics, squares_dtype)
        assert sums_nbytes(layout, everything, torch.float32) == allocated
        sums = AttributionSums()
        sums.allocate(layout, torch.float32, "cpu")
        sums.totals.rows({layer: np.arange(live.n_all) for layer, live in sums.totals.live.items()})
        beside = sum(t.nbytes for _, t in sums.recent.normalisers()) if squares_dtype is None else 0
        assert SumsBytes.of(layout, everything, torch.float32, CPU).on_host(CPU) == sums.nbytes - beside
    few = Live.fewest(topology)
    shapes = {name: tuple(t.shape) for name, t in full_sums(topology, torch.float32).named()}
    of_one = sum(1 for name in shapes if name.startswith("attr_abs/"))
    widths = sum(shape[1] for name, shape in shapes.items() if name.startswith("attr/"))
    nothing = Live(dict.fromkeys(few.sources, 0), few.targets)
    both = [sums_nbytes(live.layout(topology, "both", None), live, torch.float32) for live in (few, nothing)]
    assert both[0] - both[1] == 4 * (of_one + widths)


@pytest.fixture
def without_weights(tmp_path):
    """A language model of which there is the configuration alone."""
    huggingface_target("llama", torch.float32).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    return tmp_path / "model"


@pytest.mark.parametrize("trained", [False, True])
def test_what_cannot_fit_is_refused_before_weights_are_read(without_weights, tmp_path, trained, monkeypatch):
    monkeypatch.setattr(needs, "free_bytes", lambda _: 10)
    settings = {"decomposition": Svd()}
    run = without_weights
    if trained:
        run, settings = write_run(tmp_path / "run"), {}
        (run / "model_10.pth").write_bytes(b"damaged")
    message = (
        r"each process .* needs at least .* GB on cpu \(sums .*, weights .*, one sequence of 8 tokens .*\), "
        r"where 1e-08 GB are free for each: the ways out: .*init_args\.matrices.*--model\.metrics attr.*"
        r"--data\.target_shards.*--model\.harvest_db.*lit-attr plan"
    )
    with pytest.raises(ConfigurationError, match=message):
        work(run, write_tokens(tmp_path / "t.npy", 4), tmp_path / "out", model=settings)
    assert not (tmp_path / "out").exists()


def test_what_lives_at_least_must_fit(tmp_path, monkeypatch):
    """Between the fewest and the most that may live the harvest begins, and says what it may come to."""
    topology = Shape.of(source_of("demo", tmp_path)).topology
    model = ModelSource("demo", None, None).load().model
    least, most = Live.fewest(topology), Live.all(topology)
    site = Site(CPU, 2, torch.float32)
    layouts = [live.layout(topology, "both", torch.float32) for live in (least, most)]
    sizes = [
        SumsBytes.of(layout, live, torch.float32, CPU).on_host(CPU)
        for layout, live in zip(layouts, (least, most), strict=True)
    ]
    of_device = SumsBytes.of(layouts[1], most, torch.float32, torch.device("cuda:0")).recent
    said = []
    monkeypatch.setattr(needs, "rank_zero_info", said.append)

    def check(free):
        monkeypatch.setattr(needs, "free_bytes", lambda _: free)
        check_fits(model, topology, (least, most), "both", torch.float32, site, 32)

    with pytest.raises(ConfigurationError, match="at least"):
        check(2 * sizes[0] - 1)
    check(2 * sizes[1])
    assert not said
    check(2 * sizes[1] - 1)
    check(2 * sizes[0])
    assert len(said) == 2
    assert "should every component live and every token occur" in said[0]
    monkeypatch.setattr(needs, "free_bytes", lambda place: 1e12 if place == CPU else of_device - 1)
    on_device = replace(site, device=torch.device("cuda:0"))
    with pytest.raises(ConfigurationError, match=r"at least .* on cuda:0 \(sums"):
        check_fits(model, topology, (most, most), "both", torch.float32, on_device, 32)


class ByRank(Decomposition):
    """As many components as a matrix has large singular values: not known without numbers."""

    def factors(self, layer, weight):
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        n = int((values > 0).sum())
        return left[:, :n], values[:n, None] * right[:n]


def test_a_rule_that_needs_numbers_is_seen_when_they_are_loaded(tmp_path, caplog):
    huggingface_target("llama", torch.float32).save_pretrained(tmp_path / "model")
    with pytest.raises(ShapesUnknownError, match=r"without weights .*ByRank\.factors\('0\.attn\.q', \.\.\.\) failed"):
        Shape.of(ModelSource(str(tmp_path / "model"), ByRank(), None))
    caplog.set_level(logging.INFO)
    tokens = write_tokens(tmp_path / "t.npy", 2)
    harvest(AttributionHarvester(tmp_path / "model", decomposition=ByRank()), tokens, tmp_path / "out")
    assert "whether the harvest fits is seen once the weights are loaded" in caplog.text
