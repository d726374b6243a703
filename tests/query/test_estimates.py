"""How sure answers say that edges are: textbook formulas, and the same from every form and way of asking."""

import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from lit_attr.cli.answer_tables import print_answer
from lit_attr.errors import ConfigurationError, NotHeldError
from lit_attr.export.graph import export_graphml
from lit_attr.export.table import export_parquet
from lit_attr.export.tensors import export_safetensors
from lit_attr.query.answer_json import plain
from lit_attr.query.answers import Edge, Node, n_separated
from lit_attr.query.explorer import Explorer
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.edge_errors import FEW, EdgeErrors
from lit_attr.storage.summed_blocks import SummedBlocks
from lit_attr.storage.verify import verify
from lit_attr.topology.address import EMBED, OUTPUT, ComponentKey
from lit_attr.topology.choice import Measure
from lit_attr.topology.squares import N_BLOCKS
from tests.query.estimated import told_apart
from tests.storage.test_result_errors import READ, accumulated, written
from tests.storage.test_summed import W_UNEMBED, random_part

# What bfloat16 rounds.
ROUNDED = 2.0**-8
ASKED = [(metric, normalized) for metric in ("attr", "attr_abs") for normalized in (False, True)]


def evenly(n_groups):
    """Groups in which every source weighs the same: a ratio of sums is a mean, with the standard error of a mean."""
    groups = [random_part(8, 8) for _ in range(n_groups)]
    for group in groups:
        for ci in group.ci.values():
            ci.fill_(2.0)
        group.token_count.fill_(2)
    return groups


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return told_apart(tmp_path_factory.mktemp("estimates"))


def by_formula(storage, source, target, metric, normalized):
    """The standard error of an edge in float64, from what the dense form has stored."""
    errors = storage.standard_errors
    kind = "output" if target.layer == OUTPUT else metric
    n = float(errors.n_groups[kind][source.layer][source.index])
    stored = errors.edges(source.layer, target.layer, metric)
    if target.layer == OUTPUT:
        vectors = stored[source.index].double().view(N_BLOCKS, -1)
        error = float((vectors @ storage.w_unembed[:, target.index].double()).norm())
    else:
        error = float(stored[target.index, source.index])
    value = storage.get_attribution(str(source), str(target), metric=metric)
    if n and not (normalized and target.layer == OUTPUT):
        n_all = errors.n_all_groups[kind]
        share = min(2 / n, 1) if normalized else 1
        error = math.hypot(error, value * share * math.sqrt(max((n_all / n - 1) / (n_all - 1), 0)))
    if normalized:
        weights = storage.embed_token_count if source.layer == EMBED else storage.ci_sum[source.layer]
        squares = storage.logit_sq_sum if target.layer == OUTPUT else storage.component_act_sq_sum[target.layer]
        scale = math.sqrt(float(squares[target.index]) / storage.n_tokens_processed)
        error /= float(weights[source.index]) * scale
    return (None if n < FEW else error), n


def all_rankings(explorer, metric, normalized):
    for layer, size in explorer.layers.items():
        for index in range(size):
            key = ComponentKey(layer, index)
            asked = {"metric": metric, "normalized": normalized, "k": 100, "sign": "both"}
            if explorer.has_source(key):
                yield key, explorer.targets(str(key), **asked)
            if explorer.has_target(key) and not (layer == OUTPUT and metric == "attr_abs"):
                yield key, explorer.sources(str(key), **asked)


@pytest.mark.parametrize(("metric", "normalized"), ASKED)
def test_lists_have_what_the_formula_says(opened, metric, normalized):
    explorer, seen = opened["dense"], []
    for key, ranking in all_rankings(explorer, metric, normalized):
        assert ranking.standard_errors == "file order"
        for entry in ranking.entries:
            other = ComponentKey(entry.layer, entry.component_idx)
            ends = (other, key) if ranking.question == "sources" else (key, other)
            error, n = by_formula(explorer.storage, *ends, metric, normalized)
            assert entry.n_groups == pytest.approx(n, rel=1e-6)
            assert entry.few_groups == (error is None)
            assert entry.standard_error == (error if error is None else pytest.approx(error, rel=ROUNDED))
            if error is not None:
                low, high = entry.interval
                assert low < entry.value < high
                assert (low + high) / 2 == pytest.approx(entry.value, rel=1e-6, abs=1e-9 * (high - low))
            seen.append(error is None)
    assert sum(seen) > 10
    assert len(seen) - sum(seen) > 30


@pytest.mark.parametrize(("metric", "normalized"), ASKED[1:])
def test_all_forms_say_the_same(opened, metric, normalized):
    right = opened["dense"]
    for explorer in opened.values():
        for (_, mine), (_, theirs) in zip(
            all_rankings(explorer, metric, normalized), all_rankings(right, metric, normalized), strict=True
        ):
            assert mine == theirs
        asked = {"metric": metric, "normalized": normalized}
        for by in ("pair", "strength"):
            assert explorer.edges(k=20, by=by, **asked) == right.edges(k=20, by=by, **asked)
        keys = ["0.attn.o:1", "embed:2"]
        assert explorer.subgraph(keys, **asked) == right.subgraph(keys, **asked)


def test_edges_tables_and_exports_say_what_lists_say(opened, tmp_path):
    polars = pytest.importorskip("polars")
    networkx = pytest.importorskip("networkx")
    for number, explorer in enumerate((opened["compact with index"], opened["strongest of parts"])):
        graph = explorer.subgraph(["0.attn.o:1", "embed:2"], k=20)
        known = {(e.source.component_key, e.target.component_key): e for e in graph.edges}
        assert any(edge.standard_error is not None for edge in graph.edges)
        for ends, edge in known.items():
            answer = explorer.edge(*ends)
            assert answer.estimated(normalized=True) == edge_estimate(edge)
            raw = explorer.targets(ends[0], k=100, sign="both", normalized=False).entries
            assert answer.estimated(normalized=False) == next(
                edge_estimate(e) for e in raw if e.component_key == ends[1]
            )
            assert answer.frame()["raw_standard_error"].to_list() == [answer.raw_standard_error]
        assert [row["standard_error"] for row in graph.frame().to_dicts()] == [e.standard_error for e in graph.edges]
        as_json = json.loads(json.dumps(plain(graph)))["edges"]
        assert [edge["standard_error"] for edge in as_json] == [e.standard_error for e in graph.edges]
        path = export_graphml(explorer, tmp_path / f"{number}.graphml", graph)
        for *ends, data in networkx.read_graphml(path).edges(data=True):
            assert data.get("standard_error_normalized") == known[tuple(ends)].standard_error
            assert data["few_groups"] == known[tuple(ends)].few_groups
        for per in ("pair", "target"):
            table = polars.read_parquet(
                export_parquet(explorer, tmp_path / f"{number}.{per}", k=20, per=per)
            ).to_dicts()
            for row in table[::7]:
                ends = (f"{row[f'{end}_layer']}:{row[f'{end}_index']}" for end in ("source", "target"))
                answer = explorer.edge(*ends)
                assert row["standard_error_raw"] == answer.raw_standard_error
                assert row["standard_error_normalized"] == answer.normalized_standard_error
                assert (row["n_groups"], row["few_groups"]) == (answer.n_groups, answer.few_groups)
            assert len(table) > 20


def edge_estimate(one):
    fields = ("standard_error", "n_groups", "few_groups", "interval")
    return type(one).__mro__[1](**{name: getattr(one, name) for name in fields})


def nearer(entry):
    """The end of an interval that is nearer to zero, 0 where it has zero in it."""
    low, high = entry.interval or (-1, 1)
    return low if low > 0 else high if high < 0 else 0.0


@pytest.mark.parametrize(
    ("metric", "normalized", "sign"),
    [("attr", False, "positive"), ("attr", True, "both"), ("attr_abs", True, "negative")],
)
def test_lists_by_the_nearer_end_and_by_z(opened, metric, normalized, sign):
    asked = {"metric": metric, "normalized": normalized, "sign": sign}
    n_seen = 0
    for name in ("dense", "compact with index"):
        explorer = opened[name]
        for key, everything in all_rankings(explorer, metric, normalized):
            ask = getattr(explorer, everything.question)
            of_sign = [e for e in everything.entries if sign == "both" or (e.value > 0) == (sign == "positive")]
            surest = sorted((e for e in of_sign if nearer(e)), key=lambda e: -abs(nearer(e)))
            assert list(ask(str(key), k=100, sort="lower", **asked).entries) == surest
            assert list(ask(str(key), k=2, sort="lower", **asked).entries) == surest[:2]
            far = [e for e in of_sign if e.standard_error is not None and abs(e.value) / e.standard_error >= 2.5]
            assert list(ask(str(key), k=100, min_z=2.5, **asked).entries) == far
            n_seen += len(surest)
        for by in ("pair", "strength"):
            edges = explorer.edges(k=1000, by="strength", **asked).edges
            surest = sorted((e for e in edges if nearer(e)), key=lambda e: -abs(nearer(e)))
            found = explorer.edges(k=1000, by=by, sort="lower", **asked).edges
            if by == "strength":
                assert list(found) == surest
            assert {(e.source, e.target) for e in found} == {(e.source, e.target) for e in surest}
    assert n_seen > 20


def test_what_lists_by_sureness_need(opened, tmp_path):
    replace(opened["dense"].storage, standard_errors=None).save(tmp_path / "x.pt")
    for options in ({"sort": "lower"}, {"min_z": 1.0}):
        with pytest.raises(
            ConfigurationError, match="--sort lower and --min_z need standard errors, and the result has"
        ):
            Explorer(tmp_path / "x.pt").sources("0.attn.o:1", **options)
        for ask in (partial(opened["strongest"].sources, "0.attn.o:1"), opened["strongest"].edges):
            with pytest.raises(NotHeldError):
                ask(**options)
    for wrong in ({"sort": "z"}, {"min_z": -1.0}, {"min_z": math.nan}):
        with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} must be"):
            opened["dense"].sources("0.attn.o:1", **wrong)


def test_blocks_say_it_of_all_edges(opened):
    dense, compact = (opened[name].block("embed", "0.attn.q") for name in ("dense", "compact"))
    np.testing.assert_array_equal(dense.standard_error, compact.standard_error)
    np.testing.assert_array_equal(dense.n_groups, compact.n_groups)
    n_known = 0
    for (target, source), error in np.ndenumerate(dense.standard_error):
        known = opened["dense"].edge(f"embed:{source}", f"0.attn.q:{target}").normalized_standard_error
        assert (known is None and np.isnan(error)) or known == error
        n_known += known is not None
    assert n_known > 3
    assert opened["dense"].block("embed", "output").frame()["standard_error"].count() > 0


def test_tiles_and_single_edges_of_parts_and_results(opened):
    for name in ("dense", "compact"):
        blocks = Blocks(opened[name].storage)
        errors = EdgeErrors.of(blocks)
        for source in (EMBED, "0.attn.q"):
            for target in blocks.target_layers(source, "attr"):
                tile = errors.tile(source, target, Measure("attr"))
                values = blocks.tile(source, target, Measure("attr"))
                rows, columns = torch.meshgrid(*map(torch.arange, tile.shape), indexing="ij")
                one_by_one = errors.of_edges(
                    source, target, Measure("attr"), columns.reshape(-1), rows.reshape(-1), values.reshape(-1)
                )
                torch.testing.assert_close(one_by_one, tile.reshape(-1), rtol=0, atol=0, equal_nan=True)
                nothing = torch.empty(0, dtype=torch.int64)
                assert errors.stored(source, target, "attr", nothing, nothing).shape == (0,)


@pytest.mark.parametrize("form", ["result", "parts"])
def test_an_edge_into_a_token_that_never_varies_is_known_to_rounding(tmp_path, form):
    """Groups are multiples of each other; sums are in single precision, and so are the last digits of answers."""
    group = evenly(1)[0]
    sums = accumulated([group] * 20)
    blocks = SummedBlocks({"all": sums}, READ, W_UNEMBED, 0.0, {}) if form == "parts" else None
    blocks = blocks or Blocks(written(tmp_path / "x.pt", [sums]))
    source, places = "0.attn.o", torch.arange(W_UNEMBED.shape[1])
    residual = dense_rows(group.attr["output"][source]) * 20
    lengths = torch.outer(W_UNEMBED.norm(dim=0).double(), residual.norm(dim=1))
    there = blocks.content.stored_sources(source).all_indices
    errors = EdgeErrors.of(blocks)
    tile = errors._into_output(source, slice(None), slice(None))
    torch.testing.assert_close(tile.double(), 2.0**-20 * lengths[:, there], rtol=ROUNDED, atol=0)
    for place in range(len(there)):
        single = errors.stored(source, OUTPUT, "attr", places * 0 + place, places)
        torch.testing.assert_close(single, tile[:, place], rtol=0, atol=0)


def test_with_even_weights_it_is_the_standard_error_of_a_mean(tmp_path):
    groups = evenly(20)
    explorer = Explorer(write(tmp_path, groups))
    read = READ.of_targets("0.attn.o")
    x = torch.stack([dense_rows(group.attr["0.attn.o"]["0.attn.q"]) for group in groups]) @ read
    answers = [explorer.edge("0.attn.q:1", f"0.attn.o:{target}") for target in range(3)]
    rms = [(float(explorer.storage.component_act_sq_sum["0.attn.o"][t]) / 160) ** 0.5 for t in range(3)]
    for target, answer in enumerate(answers):
        if answer.was_harvested:
            per_group = x[:, 1, target] / 2 / rms[target]
            assert answer.normalized == pytest.approx(float(per_group.mean()), rel=1e-5)
            assert answer.n_groups == pytest.approx(20)
            error = float(per_group.std() / math.sqrt(20))
            assert answer.normalized_standard_error == pytest.approx(error, rel=ROUNDED)
            half = (answer.normalized_interval[1] - answer.normalized_interval[0]) / 2
            assert half == pytest.approx(2.0930 * answer.normalized_standard_error, rel=1e-4)
    assert any(answer.was_harvested for answer in answers)


def dense_rows(table):
    rows = torch.zeros(table.live.n_all, table.width, dtype=torch.float64)
    rows[torch.from_numpy(np.asarray(table.live.ids))] = table.numbers
    return rows


def write(folder, groups):
    for group in groups:
        for squares in (*group.act_sq.values(), group.logit_sq):
            squares.abs_()
    written(folder / "x.pt", [accumulated(groups)])
    return folder / "x.pt"


def test_a_result_without_them_says_so_once(opened, tmp_path, capsys):
    storage = replace(opened["dense"].storage, standard_errors=None)
    storage.save(tmp_path / "x.pt")
    explorer = Explorer(tmp_path / "x.pt")
    answer, known = explorer.sources("0.attn.o:1", sign="both"), opened["dense"].sources("0.attn.o:1", sign="both")
    assert (answer.standard_errors, answer.n_separated) == ("not harvested", None)
    assert [e.value for e in answer.entries] == [e.value for e in known.entries]
    assert {(e.standard_error, e.n_groups, e.few_groups, e.interval) for e in answer.entries} == {(None,) * 4}
    print_answer(answer, explorer.name, explorer.storage, 10)
    assert capsys.readouterr().out.count("no standard errors: they were not harvested") == 1
    print_answer(known, explorer.name, explorer.storage, 10)
    shown = capsys.readouterr().out
    assert " ± " in shown
    assert "(few)" in shown
    assert "in the order of its file alone" in shown.replace("\n", " ").replace("  ", " ")
    assert "standard errors: none" in verify(tmp_path / "x.pt")


def test_verify_and_tensors(opened, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    storage = opened["compact"].storage
    assert any(
        "from groups: 24 of attr, 16 of attr_abs, 16 of output" in line for line in verify(opened["compact"].path)
    )
    assert any("from groups" in line for line in verify(opened["strongest"].path))
    files = export_safetensors(storage, tmp_path / "tensors")
    found = safetensors.load_file(files[1])
    block = storage.standard_errors.regular_attr["0.attn.o"]["0.attn.q"]
    torch.testing.assert_close(found["standard_errors/regular_attr/0.attn.o/0.attn.q"], block, rtol=0, atol=0)
    errors = storage.standard_errors
    for name, wrong in (
        ("regular_attr", {**errors.regular_attr, "0.attn.o": {**errors.regular_attr["0.attn.o"], "0.attn.q": -block}}),
        (
            "n_groups",
            {**errors.n_groups, "attr": {**errors.n_groups["attr"], EMBED: errors.n_groups["attr"][EMBED] + 30}},
        ),
    ):
        path = tmp_path / f"{name}.pt"
        replace(storage, standard_errors=replace(errors, **{name: wrong})).save(path)
        with pytest.raises(Exception, match=rf"standard_errors: {name}\[.*expected finite numbers from 0"):
            verify(path)


@pytest.mark.parametrize(
    ("values_and_errors", "expected"),
    [
        ([(5, 0.5), (3, 0.1), (2, 0.1)], 2),
        ([(5, 0.5), (-4.5, 0.1), (2, 0.1), (1.9, 0.2)], 2),
        ([(5, 0.5), (4.9, 0.1)], 0),
        ([(5, 0.5), (3, None), (1, 0.1)], 0),
        ([(5, 0.5)], 0),
    ],
)
def test_to_which_place_a_list_is_separated(values_and_errors, expected):
    node = Node("0.attn.q:1", "0.attn.q", 1, None)
    edges = [
        Edge(node, node, float(v), standard_error=e, n_groups=9.0, few_groups=e is None, interval=e and (v - e, v + e))
        for v, e in values_and_errors
    ]
    assert n_separated(edges) == expected
    assert n_separated([Edge(node, node, 1.0)]) is None
