"""Answers, with an index and without, against the formulas."""

import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_attr.query.explorer import Explorer
from lit_attr.query.index_build import build_index
from lit_attr.query.index_file import index_path
from tests.query.examples import all_edges, ranked, small_tiles, storages

SIGNS = ("positive", "negative", "both")


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    small_tiles(monkeypatch)


def opened(storage, indexed):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pt"
        storage.save(path)
        if indexed:
            build_index(path)
        return Explorer(path)


def same(found, expected):
    """Names in the same order, but for values that are equal to rounding."""
    assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-4, abs=1e-6)
    for (name, value), (other, _) in zip(found, expected, strict=True):
        if name != other:
            assert value == pytest.approx(dict(expected).get(name, value), rel=1e-4, abs=1e-6)


options = st.tuples(st.sampled_from(SIGNS), st.sampled_from(("attr", "attr_abs")), st.booleans(), st.integers(1, 8))
thorough = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@thorough
@given(storages(), options, st.booleans(), st.booleans())
def test_neighbours_are_those_of_the_formulas(storage, chosen, indexed, filtered):
    sign, metric, normalized, k = chosen
    explorer = opened(storage, indexed)
    blocks = all_edges(storage, metric, normalized)
    layers = ("0.attn.*", "output", "embed") if filtered else ()

    def wanted(layer):
        return not filtered or layer.startswith("0.attn") or layer in ("output", "embed")

    for end, question in ((1, explorer.sources), (0, explorer.targets)):
        of_layer = {}
        for pair, block in blocks.items():
            of_layer.setdefault(pair[end], []).append((pair[1 - end], block if end else block.T))
        for layer, parts in of_layer.items():
            for index in range(len(parts[0][1])):
                values = {
                    f"{other}:{i}": value
                    for other, block in parts
                    if wanted(other)
                    for i, value in enumerate(block[index])
                }
                answer = question(
                    f"{layer}:{index}", k=k, sign=sign, metric=metric, normalized=normalized, layers=layers
                )
                found = [(entry.component_key, entry.value) for entry in answer.entries]
                same(found, ranked(values, k, sign))


@thorough
@given(storages(), options, st.booleans())
def test_pairs_are_those_of_the_formulas(storage, chosen, indexed):
    sign, metric, normalized, k = chosen
    explorer = opened(storage, indexed)
    blocks = all_edges(storage, metric, normalized)
    answer = explorer.edges(k=k, sign=sign, metric=metric, normalized=normalized)
    by_pair = {pair: [] for pair in blocks}
    for edge in answer.edges:
        pair = edge.source.layer, edge.target.layer
        by_pair[pair].append(((edge.source.component_idx, edge.target.component_idx), edge.value))
    for pair, block in blocks.items():
        values = {(s, t): block[t, s] for t, s in itertools.product(*map(range, block.shape))}
        same(by_pair[pair], ranked(values, k, sign))
        found = explorer.block(*pair, metric=metric, normalized=normalized)
        assert found.values == pytest.approx(block, rel=1e-4, abs=1e-6)
    for statistic in ("mass", "mean"):
        matrix = explorer.matrix(statistic=statistic, metric=metric, normalized=normalized)
        found = {
            (s, t): value
            for t, row in zip(matrix.targets, matrix.values, strict=True)
            for s, value in zip(matrix.sources, row, strict=True)
            if value is not None
        }
        sums = {p: abs(b).sum() if statistic == "mass" else abs(b).mean() for p, b in blocks.items()}
        assert found == pytest.approx(sums, rel=1e-4, abs=1e-6)


@thorough
@given(storages(), st.sampled_from(("attr", "attr_abs")), st.booleans())
def test_single_edges_are_those_of_the_formulas(storage, metric, normalized):
    explorer = opened(storage, False)
    for (source, target), block in all_edges(storage, metric, normalized).items():
        answer = explorer.edge(f"{source}:0", f"{target}:0", metric=metric)
        value = answer.normalized if normalized else answer.raw
        assert value == pytest.approx(block[0, 0], rel=1e-4, abs=1e-6)


@thorough
@given(storages(), options)
def test_an_index_changes_nothing(storage, chosen):
    """Bit for bit."""
    sign, metric, normalized, k = chosen
    if metric not in storage.metrics:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.pt"
        storage.save(path)
        build_index(path)
        fast = Explorer(path)
        index_path(path).unlink()
        slow = Explorer(path)
        for source, n in [("embed", len(storage.embed_token_count)), *((s, len(c)) for s, c in storage.ci_sum.items())]:
            for index in range(n):
                if not storage.has_source(f"{source}:{index}"):
                    continue
                options = {"k": k, "sign": sign, "metric": metric, "normalized": normalized}
                one, other = (e.targets(f"{source}:{index}", **options) for e in (fast, slow))
                assert one == other
        for index in range(len(storage.embed_token_count) if metric == "attr" else 0):
            one, other = (e.sources(f"output:{index}", **options) for e in (fast, slow))
            assert one == other
        one, other = (e.matrix(metric=metric, normalized=normalized) for e in (fast, slow))
        assert one == other


@thorough
@given(storages(), options, st.sampled_from(["upstream", "downstream"]), st.integers(1, 3), st.booleans())
def test_subgraphs_are_rankings_of_rankings(storage, chosen, direction, depth, indexed):
    sign, metric, normalized, k = chosen
    explorer = opened(storage, indexed)
    begin = "embed:0" if direction == "downstream" else "output:0"
    if begin == "embed:0" and not storage.embed_attr and metric == "attr_abs":
        return
    answer = explorer.subgraph(
        [begin],
        k=k,
        depth=depth,
        threshold=0.1,
        direction=direction,
        sign=sign,
        metric=metric,
        normalized=normalized,
    )
    blocks = all_edges(storage, metric, normalized)
    expected, seen, frontier = {}, {begin}, [begin]
    for _ in range(depth):
        reached = []
        for node in frontier:
            layer, _, index = node.rpartition(":")
            values = {}
            for (s, t), block in blocks.items():
                if direction == "downstream" and s == layer:
                    values |= {f"{t}:{i}": v for i, v in enumerate(block[:, int(index)])}
                if direction == "upstream" and t == layer:
                    values |= {f"{s}:{i}": v for i, v in enumerate(block[int(index)])}
            for other, value in ranked(values, k, sign):
                if abs(value) >= 0.1:
                    expected[(node, other) if direction == "downstream" else (other, node)] = value
                    reached.append(other)
        frontier = [node for node in dict.fromkeys(reached) if node not in seen]
        seen.update(frontier)
    found = {(e.source.component_key, e.target.component_key): e.value for e in answer.edges}
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert {node.component_key for node in answer.nodes} == seen
