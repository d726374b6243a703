from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from lit_attr.errors import ConfigurationError, EdgeNotFoundError, KeyFormatError
from lit_attr.plots.figures import component_figure, mass_figure, subgraph_figure
from lit_attr.plots.mass import plot_mass
from lit_attr.plots.style import NEGATIVE, POSITIVE
from lit_attr.query.explorer import Explorer
from lit_attr.query.strongest_build import write_strongest
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.rounding import Rounding
from tests.export.examples import PARTIAL, all_edges
from tests.storage.examples import from_a_share, partly_harvested, random_storage

A_SHARE = from_a_share(0.25, 3).provenance


@pytest.fixture
def explore(tmp_path):
    """Writes a storage into a folder, and opens it for questions."""

    def opened(storage):
        storage.save(tmp_path / "stored.pt")
        return Explorer(tmp_path / "stored.pt")

    return opened


def texts(figure):
    """All texts of a picture with their sizes."""
    figure.draw_without_rendering()
    from matplotlib.text import Text

    return {t.get_text(): t.get_fontsize() for t in figure.findobj(Text) if t.get_text() and t.get_visible()}


def layer(key):
    return key.rpartition(":")[0]


@pytest.mark.parametrize("metric", ["attr", "attr_abs"])
def test_masses_are_sums_of_magnitudes(explore, metric):
    storage = random_storage()
    expected = {}
    for (source, target), (_, normalized) in all_edges(storage, metric).items():
        pair = layer(source), layer(target)
        expected[pair] = expected.get(pair, 0.0) + abs(normalized.expected)
    axes, *_ = mass_figure(explore(storage), metric=metric).axes
    x, y = ([t.get_text() for t in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis))
    table = axes.collections[0].get_array()
    found = {(s, t): table[n, m] for m, s in enumerate(x) for n, t in enumerate(y) if not np.ma.is_masked(table[n, m])}
    assert found == pytest.approx(expected)


def test_a_pair_whose_edges_are_all_zero_is_not_one_without_edges():
    figure = plot_mass({("embed", "output"): 0.0, ("0.attn.o", "output"): 2.0})
    assert "all edges are zero" in texts(figure)
    assert "all edges are zero" not in texts(plot_mass({("embed", "output"): 1.0}))
    texts(plot_mass({("embed", "output"): 0.0}))
    with pytest.raises(ConfigurationError, match="no pair of layers has edges"):
        plot_mass({})


def test_a_pair_that_was_not_harvested_is_hatched(explore):
    figure = mass_figure(explore(partly_harvested({"0.attn.q": [0, 1], "0.mlp.up": [1]})))
    axes = figure.axes[0]
    assert {"not harvested", "sum of |normalised attribution|, edges that were harvested"} <= texts(figure).keys()
    (hatched,) = [one for one in axes.collections if one.get_hatch()]
    x, y = ([t.get_text() for t in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis))
    corners = [path.vertices.min(0).astype(int) for path in hatched.get_paths()]
    assert [(x[column], y[row]) for column, row in corners] == [("embed", "0.attn.q")]
    colored = [one.get_array() for one in axes.collections if not one.get_hatch()]
    assert all(np.ma.is_masked(table[y.index("0.attn.q"), x.index("embed")]) for table in colored)
    assert "not harvested" not in texts(mass_figure(explore(random_storage())))
    texts(plot_mass({("embed", "0.attn.q"): None}))


def test_colours_are_logarithmic_where_masses_differ_much():
    from matplotlib.colors import LogNorm

    for ratio, logarithmic in ((2.0, False), (500.0, True), (1e9, True)):
        figure = plot_mass({("embed", "output"): 1.0, ("0.attn.o", "output"): ratio})
        assert isinstance(figure.axes[0].collections[0].norm, LogNorm) == logarithmic
        assert "$" not in "".join(texts(figure))
    assert {"10⁰", "10⁹"} <= texts(figure).keys()


def test_many_layers_are_labelled_by_block():
    layers = [f"{block}.{matrix}" for block in range(24) for matrix in ("attn.q", "attn.o", "mlp.up", "mlp.down")]
    figure = plot_mass({(source, "output"): 1.0 for source in layers} | {("embed", target): 2.0 for target in layers})
    found = texts(figure)
    assert {"0", "23", "\nembed", "output"} <= found.keys()
    assert "source, by block; in each: attn.q, attn.o, mlp.up, mlp.down" in found


def test_bars_are_the_storages(explore):
    storage = random_storage()
    figure = component_figure(explore(storage), "0.mlp.up:1", k=3)
    sources, targets = figure.axes
    for axes, ask in ((sources, storage.get_top_sources), (targets, storage.get_top_targets)):
        labels = [t.get_text() for t in axes.get_yticklabels()]
        found = {label: bar.get_width() for label, bar in zip(labels, axes.patches, strict=True)}
        expected = [entry for sign in ("positive", "negative") for entry in ask("0.mlp.up:1", 3, sign)]
        assert found == pytest.approx({entry.component_key: entry.value for entry in expected})
        widths = [bar.get_width() for bar in axes.patches]
        assert widths == sorted(widths)
        assert all(bool(bar.get_hatch()) == (bar.get_width() < 0) for bar in axes.patches)
    note = "no standard errors: they were not harvested"
    assert min(size for text, size in texts(figure).items() if text != note) >= 7


def test_a_side_without_edges_is_left_out(explore):
    (axes,) = component_figure(explore(random_storage()), "output:1").axes
    assert axes.get_title() == "sources of output:1"
    (axes,) = component_figure(explore(random_storage()), "embed:1").axes
    assert axes.get_title() == "targets of embed:1"
    with pytest.raises(EdgeNotFoundError, match="attributions to the output have no attr_abs"):
        component_figure(explore(random_storage()), "output:1", metric="attr_abs")


def test_a_component_whose_edges_are_all_zero(explore):
    storage = random_storage()
    for tensor in storage.unembed_attr.values():
        tensor.zero_()
    storage.embed_unembed_attr.zero_()
    with pytest.raises(ConfigurationError, match="no sources or targets of output:1 were measured that"):
        component_figure(explore(storage), "output:1")


def test_a_component_that_was_no_target(explore):
    storage = partly_harvested({"0.mlp.up": [1]})
    assert "no target of the harvest" in component_figure(explore(storage), "0.mlp.up:1").axes[0].get_title()
    missing = "normalised attribution\nnot harvested, cannot appear: 1"
    assert missing in texts(component_figure(explore(storage), "embed:2"))
    assert missing not in texts(component_figure(explore(storage), "0.mlp.up:2"))  # it feeds another layer


def test_tokens_are_shown_by_the_demos_tokenizer(explore):
    storage = random_storage(provenance={"run_reference": "demo"})
    found = texts(component_figure(explore(storage), "embed:0"))
    assert 'targets of embed:"<s>"' in found
    assert any(text.startswith('output:"') for text in found)


def test_edges_of_a_subgraph(explore):
    from matplotlib.colors import to_hex
    from matplotlib.patches import PathPatch

    storage = random_storage()
    figure = subgraph_figure(explore(storage), ["0.mlp.up:1"], k=100, depth=9)
    found = texts(figure)
    assert {"embed", "0.attn.q", "0.mlp.up", "0.mlp.down", "output"} <= found.keys()
    assert min(found.values()) >= 7
    drawn = [p for p in figure.axes[0].patches if isinstance(p, PathPatch)]
    assert {to_hex(p.get_edgecolor()).upper() for p in drawn} == {POSITIVE, NEGATIVE}
    for patch in drawn:  # told apart without colour, and upwards
        dashed = patch.get_linestyle() != "solid"
        assert dashed == (to_hex(patch.get_edgecolor()).upper() == NEGATIVE)
        y = patch.get_path().vertices[:, 1]
        assert (np.diff(y) >= 0).all()


def test_nodes_whose_sources_were_not_harvested(explore):
    from matplotlib.text import Text

    figure = subgraph_figure(explore(partly_harvested({"0.attn.q": [1]})), ["0.mlp.up:1"], k=100, depth=9)
    assert "sources not harvested" in texts(figure)
    rims = {
        t.get_bbox_patch().get_linestyle() for t in figure.findobj(Text) if t.get_text() == "1" and t.get_bbox_patch()
    }
    assert len(rims) == 2
    assert "sources not harvested" not in texts(subgraph_figure(explore(random_storage()), ["0.mlp.up:1"]))


def test_layers_of_a_subgraph(explore):
    found = texts(subgraph_figure(explore(random_storage()), ["0.mlp.up:1"], layers=["0.attn.q"]))
    assert {"0.attn.q", "0.mlp.up"} <= found.keys()
    assert not {"embed", "0.mlp.down", "output"} & found.keys()


def test_widths_are_proportional(explore):
    from matplotlib.patches import PathPatch

    storage = random_storage()
    for tensor in (*storage.regular_attr["0.mlp.up"].values(), storage.embed_attr["0.mlp.up"]):
        tensor.zero_()
    storage.ci_sum["0.attn.q"].fill_(1.0)
    storage.regular_attr["0.mlp.up"]["0.attn.q"][1] = torch.tensor([4.0, -2.0])
    figure = subgraph_figure(explore(storage), ["0.mlp.up:1"], k=2, depth=1)
    own = [edge for edge in figure.axes[0].patches if isinstance(edge, PathPatch)]
    low = min(edge.get_path().vertices[0, 1] for edge in own)
    widths = {
        edge.get_linestyle() == "solid": edge.get_linewidth() for edge in own if edge.get_path().vertices[0, 1] == low
    }
    assert widths[True] == pytest.approx(2 * widths[False])


def test_refusals(explore):
    storage = random_storage()
    with pytest.raises(KeyFormatError, match="malformed component key 'x'"):
        component_figure(explore(storage), "x")
    with pytest.raises(EdgeNotFoundError, match="no targets of embed:5: embed has 5 token ids"):
        component_figure(explore(storage), "embed:5")
    with pytest.raises(ConfigurationError, match="the subgraph has no edges"):
        subgraph_figure(explore(storage), ["0.mlp.up:1"], threshold=1e12)


@pytest.mark.parametrize(
    ("provenance", "metric", "note"),
    [
        (PARTIAL, "attr", "partial result: 3 of 10 batches"),
        (
            {**PARTIAL, **A_SHARE},
            "attr_abs",
            "partial result: 3 of 10 batches\nattr_abs from 25 % of the sequences (3 of",
        ),
    ],
)
def test_pictures_of_a_part_of_the_data_say_so(explore, provenance, metric, note):
    """Above everything else, so that nothing is covered."""
    explorer = explore(random_storage(provenance=provenance))
    for draw in (
        mass_figure,
        partial(component_figure, key="0.mlp.up:1"),
        partial(subgraph_figure, keys=["0.mlp.up:1"]),
    ):
        figure = draw(explorer, metric=metric)
        assert any(text.startswith(note) for text in texts(figure))
        low = figure._suptitle.get_window_extent().y0
        assert figure.axes[0].get_tightbbox().y1 <= low
    assert not any("partial" in text or "%" in text for text in texts(mass_figure(explore(random_storage()))))


def test_rounded_numbers_say_so(explore):
    rounded = replace(random_storage(), rounding=Rounding(torch.tensor(0.00375)))
    said = "edges into components were rounded to bfloat16, each by at most 0.38 %"
    assert any(said in text.replace("\n", " ") for text in texts(mass_figure(explore(rounded))))


def test_what_is_not_held_is_written_on_the_picture(tmp_path):
    explorer = Explorer(write_strongest(Blocks(random_storage()), tmp_path / "x.strongest", 1))
    for figure, lacks in (
        (component_figure(explorer, "0.mlp.up:1", k=1), False),
        (component_figure(explorer, "0.mlp.up:1", k=3), True),
        (subgraph_figure(explorer, ["0.mlp.up:1"], k=1), False),
        (subgraph_figure(explorer, ["0.mlp.up:1"], k=9), True),
        (mass_figure(explorer), False),
    ):
        assert any("weaker ones were not kept" in text for text in texts(figure)) == lacks
