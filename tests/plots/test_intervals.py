"""Pictures of how sure edges are: their marks are what answers say."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from matplotlib.colors import LogNorm

from benchmarks.workers import QUIET
from lit_attr.errors import ConfigurationError, NotHeldError
from lit_attr.harvest.datamodule import TokenDataModule
from lit_attr.harvest.harvester import AttributionHarvester
from lit_attr.harvest.writer import StorageWriter
from lit_attr.parts.looks import Look, record_look
from lit_attr.plots import volcano_counts as counting
from lit_attr.plots.comparison import plot_comparison
from lit_attr.plots.convergence import LOOKS, Convergence, convergence
from lit_attr.plots.convergence_curves import plot_convergence
from lit_attr.plots.figures import comparison_figure, component_figure, convergence_figure, volcano_figure
from lit_attr.plots.volcano import plot_volcano
from lit_attr.plots.volcano_counts import volcano_counts
from lit_attr.query.compare import compare
from lit_attr.query.explorer import Explorer
from lit_attr.query.strongest_build import write_strongest
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.interval import t_quantile
from tests.harvest.runs import small_run
from tests.plots.test_figures import texts
from tests.plots.test_stability import random_parts
from tests.query.test_compare import groups
from tests.storage.test_result_errors import accumulated, written
from tests.toys import BLOCK, write_tokens

KEY = "0.attn.o:1"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for name, shift in (("a", 0.0), ("b", 2.0)):
        written(folder / f"{name}.pt", [accumulated(groups(shift))])
    return [Explorer(folder / f"{name}.pt") for name in ("a", "b")]


@pytest.fixture
def without_errors(results, tmp_path):
    replace(results[0].storage, standard_errors=None).save(tmp_path / "x.pt")
    return Explorer(tmp_path / "x.pt")


def whiskers(axes):
    return {line.get_ydata()[0]: tuple(line.get_xdata()) for line in axes.lines if line.get_marker() == "|"}


def test_bars_of_a_component_have_their_intervals(results, without_errors):
    figure = component_figure(results[0], KEY, k=3)
    sources = figure.axes[0]
    entries = [e for sign in ("positive", "negative") for e in results[0].sources(KEY, k=3, sign=sign).entries]
    entries.sort(key=lambda entry: entry.value)
    expected = {place: entry.interval for place, entry in enumerate(entries) if entry.interval}
    assert len(expected) > 2
    assert whiskers(sources) == expected
    for bar, entry in zip(sources.patches, entries, strict=True):
        has_zero = entry.interval is not None and entry.interval[0] <= 0 <= entry.interval[1]
        assert (bar.get_alpha() is not None) == has_zero
    assert "95 % interval" in texts(figure)
    plain = component_figure(without_errors, KEY, k=3)
    assert not whiskers(plain.axes[0])
    assert "95 % interval" not in texts(plain)
    assert "no standard errors: they were not harvested" in texts(plain)


def test_few_groups_and_the_order_of_the_file_are_said(results, tmp_path):
    content, errors = results[0].storage, results[0].storage.standard_errors
    assert content.error_basis == "file order"
    assert any(text.startswith("95 % intervals of this text in") for text in texts(component_figure(results[0], KEY)))
    few = {layer: numbers * 0 + 2 for layer, numbers in errors.n_groups["attr"].items()}
    changed = replace(errors, n_groups={**errors.n_groups, "attr": few})
    replace(content, standard_errors=changed, provenance={"order": "random"}).save(tmp_path / "x.pt")
    figure = component_figure(Explorer(tmp_path / "x.pt"), KEY, k=3)
    assert all(label.get_text().endswith(" (few)") for label in figure.axes[0].get_yticklabels())
    assert not whiskers(figure.axes[0])
    assert not any("in the order of its file" in text for text in texts(figure))


def every_edge(explorer, metric="attr"):
    edges = explorer.edges(k=10_000, by="strength", metric=metric).edges
    assert len(edges) > 30
    return edges


@pytest.mark.parametrize("metric", ["attr", "attr_abs"])
def test_a_volcano_counts_every_edge_by_value_and_z(results, metric, monkeypatch):
    monkeypatch.setattr(counting, "_SIDE", 2)
    found = volcano_counts(results[0], metric, ())
    known = [edge for edge in every_edge(results[0], metric) if edge.interval is not None]
    assert found.counts.sum() == len(known)
    assert found.n_few == len(every_edge(results[0], metric)) - len(known)
    assert found.n_sure == sum(not edge.interval[0] <= 0 <= edge.interval[1] for edge in known)
    assert found.share == 1
    values = np.array([edge.value for edge in known])
    zs = np.clip(abs(values) / np.array([edge.standard_error for edge in known]), found.zs[0], found.zs[-1])
    for sign, side in ((0, values < 0), (1, values > 0)):
        by_z, *_ = np.histogram2d(zs[side], abs(values[side]), bins=(found.zs, found.magnitudes))
        # A value at an edge of cells may be rounded to either side.
        assert abs(by_z - found.counts[:, sign]).sum() <= 2


def test_the_picture_of_a_volcano(results, without_errors, tmp_path):
    figure = volcano_figure(results[0], k=2)
    (mesh,) = [one for one in figure.axes[0].collections if isinstance(one.norm, LogNorm)]
    assert mesh.get_array().sum() == volcano_counts(results[0], "attr", ()).counts.sum()
    found = texts(figure)
    assert sum(" → " in text for text in found) == 2
    assert "$" not in "".join(found)
    assert any("with an interval without zero" in text for text in found)
    with pytest.raises(ConfigurationError, match="a volcano plot needs standard errors, and the result has"):
        volcano_figure(without_errors)
    strongest = write_strongest(Blocks(results[0].storage), tmp_path / "x.strongest", 2)
    with pytest.raises(NotHeldError):
        volcano_figure(Explorer(strongest))
    with pytest.raises(ConfigurationError, match="k must be"):
        volcano_figure(results[0], k=0)
    counts = volcano_counts(results[0], "attr", ())
    with pytest.raises(ConfigurationError, match="has an interval: there is nothing to be plotted"):
        plot_volcano(replace(counts, counts=counts.counts * 0), [], "x")


def test_of_many_edges_some_tiles_are_counted_and_that_is_said(results, monkeypatch):
    monkeypatch.setattr(counting, "_SIDE", 2)
    monkeypatch.setattr(counting, "_MOST", 40)
    found = volcano_counts(results[0], "attr", ())
    assert 0 < found.share < 0.6
    assert f"of {found.share:.2g} of all, spread evenly" in " ".join(texts(plot_volcano(found, [], "x")))


def test_layers_of_a_volcano(results):
    found = volcano_counts(results[0], "attr", ["output"])
    into_tokens = [edge for edge in every_edge(results[0]) if edge.target.layer == "output" and edge.interval]
    assert found.counts.sum() == len(into_tokens)


def test_the_picture_of_a_comparison(results):
    answer = compare(*results, match="index", level=0.2, k=5)
    figure = comparison_figure(answer, [explorer.name for explorer in results])
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == pytest.approx([e.difference for e in reversed(answer.edges)])
    for place, edge in enumerate(reversed(answer.edges)):
        half = float(t_quantile(torch.tensor(edge.df))) * edge.standard_error
        assert whiskers(left)[place] == pytest.approx((edge.difference - half, edge.difference + half))
    (points,) = right.collections
    assert points.get_offsets().tolist() == [[pair.mass_a, pair.mass_b] for pair in answer.masses if pair.mass_a > 0]
    found = " ".join(texts(figure))
    assert f"{answer.n_different:,} of {answer.n_tested:,} tested edges differ (q ≤ 0.2)" in found
    assert "$" not in found
    (alone,) = plot_comparison(replace(answer, edges=())).axes
    assert "tested edges differ" in alone.get_xlabel()
    with pytest.raises(ConfigurationError, match="no two layers have edges in both results"):
        plot_comparison(replace(answer, masses=()))


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A harvest of 8, 16 and 32 batches, and what it answered after each."""
    place = tmp_path_factory.mktemp("extended")
    run, tokens = small_run(place / "run"), write_tokens(place / "tokens.npy", 64)
    explorers = []
    for n_batches in (8, 16, 32):
        writer = StorageWriter(place, "da-x")
        data = TokenDataModule(tokens, 2, n_batches)
        Trainer(**QUIET, callbacks=[writer]).predict(AttributionHarvester(run), datamodule=data)
        explorers.append(Explorer(shutil.copy(writer.path, place / f"{n_batches}.pt")))
    return writer.folder, explorers


def test_convergence_is_that_of_answers(extended):
    folder, explorers = extended
    found = convergence(folder, 3)
    relative = {}
    for source, target in explorers[-1].layer_pairs(metric="attr"):
        kind = " to ".join("token" if layer in ("embed", "output") else "component" for layer in (source, target))
        for edge in explorers[-1].pair_edges(source, target, k=3).edges:
            keys = edge.source.component_key, edge.target.component_key
            for place, explorer in enumerate(explorers):
                error = explorer.edge(*keys).normalized_standard_error
                error = np.inf if error is None else error / abs(edge.value)
                relative.setdefault(kind, [[], [], []])[place].append(error)
    assert found.curves.keys() == relative.keys()
    for kind, (n_tokens, medians) in found.curves.items():
        assert n_tokens == [8 * 2 * BLOCK, 16 * 2 * BLOCK, 32 * 2 * BLOCK]
        expected = [np.median(errors) for errors in relative[kind]]
        # Of a source that occurs unevenly a part of the error is a share of the value, here the final one.
        assert medians == pytest.approx([m if np.isfinite(m) else np.nan for m in expected], rel=0.02, nan_ok=True)


def test_of_many_parts_some_are_looked_at(extended, monkeypatch):
    every = convergence(extended[0], 3)
    monkeypatch.setattr("lit_attr.plots.convergence._MOST_POINTS", 2)
    for kind, (n_tokens, medians) in convergence(extended[0], 3).curves.items():
        assert n_tokens == [every.curves[kind][0][place] for place in (0, 2)]
        np.testing.assert_array_equal(medians, [every.curves[kind][1][place] for place in (0, 2)])


def test_the_picture_of_convergence(extended):
    folder, _ = extended
    axes, found = convergence_figure(folder, k=3).axes[0], convergence(folder, 3)
    drawn = {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in axes.lines}
    for kind, (n_tokens, medians) in found.curves.items():
        assert list(drawn[kind][0]) == n_tokens
        np.testing.assert_array_equal(drawn[kind][1], medians)
    first, last = drawn["1 / √tokens"][1]
    assert last / first == pytest.approx(0.5)  # of four times as many tokens


def test_looks_are_a_curve_of_their_own(extended, tmp_path):
    folder = shutil.copytree(extended[0], tmp_path / "da-x")
    for n_batches, error in ((16, 0.5), (32, 0.25)):
        record_look(folder, Look(n_batches, 0.975, 10, 5, 1, error, 0.95, 0.05))
    assert convergence(folder).curves[LOOKS] == ([16 * 2 * BLOCK, 32 * 2 * BLOCK], [0.5, 0.25])


def test_what_convergence_needs(tmp_path):
    run, tokens = small_run(tmp_path / "run"), write_tokens(tmp_path / "tokens.npy", 8)
    writer = StorageWriter(tmp_path / "out")
    Trainer(**QUIET, callbacks=[writer]).predict(AttributionHarvester(run), datamodule=TokenDataModule(tokens, 2))
    with pytest.raises(ConfigurationError, match="convergence needs at least 2 committed parts, found 1; harvest with"):
        convergence(writer.folder)
    random_parts(tmp_path / "parts", 3)
    with pytest.raises(ConfigurationError, match="convergence needs standard errors, and the result has"):
        convergence(tmp_path / "parts")
    with pytest.raises(ConfigurationError, match="not half of the strongest edges have a standard error"):
        plot_convergence(Convergence({"token to token": ([1, 2], [np.nan, np.nan])}, 3))
