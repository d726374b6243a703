"""Two results compared: against a brute force over all edges, on halves of one data set, and on data made to differ."""

import json
import random
from dataclasses import replace

import numpy as np
import polars
import pytest
import torch

from lit_attr.assets import ASSETS, TOKENS
from lit_attr.cli.main import main
from lit_attr.demo import grammar
from lit_attr.errors import ConfigurationError
from lit_attr.query import paired_tiles
from lit_attr.query.compare import compare
from lit_attr.query.explorer import Explorer
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.edge_errors import EdgeErrors
from lit_attr.storage.student_t import tail
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.choice import Measure
from tests.query.examples import all_edges
from tests.storage.examples import random_storage
from tests.storage.test_result_errors import accumulated, written
from tests.storage.test_summed import random_part


def groups(shift):
    parts = [random_part(8, 8) for _ in range(24)]
    for part in parts:
        for ci in part.ci.values():
            ci.abs_()
        part.act_sq.update({layer: tensor.abs_() + 1 for layer, tensor in part.act_sq.items()})
        part.logit_sq.abs_().add_(1)
        for by_source in part.attr.values():
            for source, table in by_source.items():
                if source != EMBED:
                    table.numbers.add_(shift)
    return parts


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for name, shift in (("a", 0.0), ("b", 2.0)):
        written(folder / f"{name}.pt", [accumulated(groups(shift))])
    return [Explorer(folder / f"{name}.pt") for name in ("a", "b")]


def by_definition(one, other):
    """All tested edges: values, standard errors and degrees of freedom, in units of one root mean square."""
    sides = [Blocks(explorer.storage) for explorer in (one, other)]
    errors = [EdgeErrors.of(blocks) for blocks in sides]
    n_tokens = [explorer.storage.n_tokens_processed for explorer in (one, other)]
    tested = {}
    for source, target in one.layer_pairs():
        own = [blocks.normalisation.of_targets(target).double() for blocks in sides]
        pooled = ((own[0] ** 2 * n_tokens[0] + own[1] ** 2 * n_tokens[1]) / sum(n_tokens)).sqrt()
        tiles = [blocks.tile(source, target, Measure()).double() for blocks in sides]
        spread = [error.tile(source, target, Measure()).double() for error in errors]
        n_groups = [error.n_groups(source, target, "attr").double() for error in errors]
        missing = set(one.harvested.missing(target).tolist()) if target != OUTPUT else set()
        for row in range(len(pooled)):
            for column in range(tiles[0].shape[1]):
                values = [float(tiles[i][row, column] * own[i][row] / pooled[row]) for i in (0, 1)]
                variances = [float((spread[i][row, column] * own[i][row] / pooled[row]) ** 2) for i in (0, 1)]
                if row in missing or not sum(variances) > 0:
                    continue
                df = sum(variances) ** 2 / sum(v**2 / (float(n_groups[i][column]) - 1) for i, v in enumerate(variances))
                z = (values[1] - values[0]) / sum(variances) ** 0.5
                p = float(tail(torch.tensor([z]).double(), torch.tensor([df]).double()))
                tested[f"{source}:{column}", f"{target}:{row}"] = (*values, sum(variances) ** 0.5, z, df, p)
    return tested


def test_every_edge_as_a_brute_force_has_it(results):
    tested = by_definition(*results)
    found = compare(*results, match="index", level=0.2, k=1000)
    assert found.n_tested == len(tested) > 50
    ranked = sorted(edge[5] for edge in tested.values())
    n_different = max((j for j, p in enumerate(ranked, 1) if p <= 0.2 * j / len(ranked)), default=0)
    assert found.n_different == n_different == len(found.edges) > 3
    assert found.n_nominal == sum(p <= 0.2 for p in ranked)
    for edge in found.edges:
        expected = tested[edge.source.component_key, edge.target.component_key]
        mine = edge.value_a, edge.value_b, edge.standard_error, edge.z, edge.df, edge.p
        assert mine == pytest.approx(expected, rel=1e-5)
    sizes = [abs(edge.difference) for edge in found.edges]
    assert sizes == sorted(sizes, reverse=True)
    by_z = [abs(edge.z) for edge in compare(*results, match="index", level=0.2, k=1000, sort="z").edges]
    assert by_z == sorted(by_z, reverse=True)


def test_what_cannot_be_compared(results):
    with pytest.raises(ConfigurationError, match="expected the same decomposition"):
        compare(*results)
    with pytest.raises(ConfigurationError, match="with itself"):
        compare(results[0], results[0], match="index")
    for options, message in (({"sort": "size"}, "sort must be"), ({"level": 1.0}, "level q"), ({"k": 0}, "k")):
        with pytest.raises(ConfigurationError, match=message):
            compare(*results, match="index", **options)


def stored(folder, storage, name):
    storage.save(folder / f"{name}.pt")
    return Explorer(folder / f"{name}.pt")


def pooled(one, other):
    """All edges of two results in units of one root mean square, in float64: pair of layers to two blocks."""
    n = one.n_tokens_processed, other.n_tokens_processed
    found = {}
    for pair, block in all_edges(one, "attr", normalized=True).items():
        target = pair[1]
        squares = [
            (s.logit_sq_sum if target == "output" else s.component_act_sq_sum[target]).double().numpy()
            for s in (one, other)
        ]
        unit = np.sqrt((squares[0] + squares[1]) / sum(n))
        blocks = block, all_edges(other, "attr", normalized=True)[pair]
        found[pair] = [b * (np.sqrt(sq / k) / unit)[:, None] for b, sq, k in zip(blocks, squares, n, strict=True)]
    return found


def test_values_masses_and_correlations(tmp_path, monkeypatch):
    monkeypatch.setattr(paired_tiles, "_SIDE", 2)
    one, other = (random_storage(seed, provenance={"weights_digest": "x"}) for seed in (1, 2))
    answer = compare(*(stored(tmp_path, s, n) for s, n in ((one, "a"), (other, "b"))), k=10_000)
    assert "without standard errors" in answer.why_not_tested
    expected, masses = {}, {}
    for (source, target), (a, b) in pooled(one, other).items():
        occur = (one.embed_token_count > 0) & (other.embed_token_count > 0)
        columns = occur.nonzero()[:, 0].tolist() if source == "embed" else range(a.shape[1])
        masses[source, target] = abs(a[:, columns]).sum(), abs(b[:, columns]).sum()
        expected |= {(f"{source}:{s}", f"{target}:{t}"): (a[t, s], b[t, s]) for s in columns for t in range(a.shape[0])}
    found = {(e.source.component_key, e.target.component_key): (e.value_a, e.value_b) for e in answer.edges}
    assert found.keys() == expected.keys()
    assert all(found[key] == pytest.approx(expected[key], rel=1e-5) for key in found)
    assert answer.n_compared == len(expected)
    differences = [abs(e.difference) for e in answer.edges]
    assert differences == sorted(differences, reverse=True)
    assert {(m.source_layer, m.target_layer): (m.mass_a, m.mass_b) for m in answer.masses} == {
        pair: pytest.approx(mass, rel=1e-5) for pair, mass in masses.items()
    }
    values = np.array(list(expected.values())).T
    assert answer.correlation == pytest.approx(np.corrcoef(values)[0, 1], rel=1e-5)
    rounded = torch.from_numpy(values).to(torch.bfloat16).double().numpy()
    ranks = [(v[:, None] > v).sum(1) + (v[:, None] == v).sum(1) / 2 for v in rounded]
    assert answer.rank_correlation == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-3)


def test_results_of_the_same_data_are_not_tested(results, tmp_path):
    storages = [replace(one.storage, provenance={"weights_digest": "x", "data_digest": "same"}) for one in results]
    one, other = (stored(tmp_path, storage, name) for storage, name in zip(storages, "ab", strict=True))
    answer = compare(one, other)
    assert "both are of the same data" in answer.why_not_tested
    assert (answer.n_tested, answer.edges[0].p) == (0, None)
    with pytest.raises(ConfigurationError, match="nothing can be sorted by z: both are of the same data"):
        compare(one, other, sort="z")


def test_what_only_rounding_tells_apart_is_no_difference(tmp_path):
    """The spread is zero, and sums are one rounding off."""
    paths, part = [tmp_path / "a.pt", tmp_path / "b.pt"], groups(2.0)[0]
    for path in paths:
        written(path, [accumulated([part] * 24)])
    one, other = map(Explorer, paths)
    for block in (other.storage.embed_unembed_attr, *other.storage.unembed_attr.values()):
        block.copy_(block.nextafter(torch.tensor(torch.inf)))
    found = compare(one, stored(tmp_path, other.storage, "c"), match="index", targets=[OUTPUT])
    assert found.n_tested > 10
    assert (found.n_nominal, found.n_different) == (0, 0)


def test_the_command(results, tmp_path, capsys, monkeypatch):
    """The same edges in tables, JSON and files; a file is not replaced without being told."""
    monkeypatch.setenv("COLUMNS", "120")
    given = ["compare", *(str(explorer.path) for explorer in results), "--match", "index", "--q", "0.2", "-k", "5"]
    expected = compare(*results, match="index", level=0.2, k=5).edges
    ends = [(edge.source.component_key, edge.target.component_key) for edge in expected]
    assert main([*given, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(edge["source"], edge["target"]) for edge in answer["edges"]] == ends
    assert main(given) == 0
    shown = capsys.readouterr().out
    assert all(key in shown for pair in ends for key in pair)
    assert "tested edges differ at a false discovery rate of 0.2" in shown
    picture = tmp_path / "x.svg"
    assert main([*given, "--plot", str(picture)]) == 0
    assert "tested edges differ (q ≤ 0.2)" in picture.read_text()
    assert main([*given, "--plot", str(picture)]) == 2
    assert "exists already" in capsys.readouterr().err
    for name in ("x.csv", "x.parquet"):
        assert main([*given, "--to", str(tmp_path / name)]) == 0
        table = getattr(polars, f"read_{name.partition('.')[2]}")(tmp_path / name)
        assert list(zip(table["source"], table["target"], strict=True)) == ends
        assert table["z"].to_list() == pytest.approx([edge.z for edge in expected])
        assert main([*given, "--to", str(tmp_path / name)]) == 2
        assert "exists already" in capsys.readouterr().err
        assert main([*given, "--to", str(tmp_path / name), "--overwrite"]) == 0
    assert main([*given, "--to", str(tmp_path / "x.txt")]) == 2
    assert ".csv or .parquet" in capsys.readouterr().err


def harvested(folder, rows, capsys):
    np.save(folder / "rows.npy", rows)
    arguments = ["predict", "--config", "configs/demo.yaml", "--data.tokens", str(folder / "rows.npy")]
    arguments += ["--data.n_batches", "whole_dataset", "--data.batch_size", "16", "--writer.out_dir", str(folder)]
    assert main(arguments) == 0
    (path,) = folder.rglob("dataset_attributions.pt")
    capsys.readouterr()
    return path


@pytest.mark.slow
def test_halves_of_one_data_set_hardly_differ(tmp_path, capsys):
    """Of all tested edges, at most the nominal share is called different."""
    stories = np.load(ASSETS / TOKENS)[:2000]
    paths = []
    for name, rows in (("a", stories[::2]), ("b", stories[1::2])):
        (tmp_path / name).mkdir()
        paths.append(harvested(tmp_path / name, rows, capsys))
    assert main(["compare", *map(str, paths), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_tested"] > 10_000
    assert found["n_different"] <= 0.05 * found["n_tested"]
    assert found["correlation"] > 0.99


@pytest.mark.slow
def test_a_rule_that_was_dropped_is_found(tmp_path, capsys):
    """Pronouns that agree with no name, in one of two data sets: edges of pronouns lead the list."""
    ids = {word: number for number, word in enumerate(grammar.vocabulary())}
    forms = list(grammar.PRONOUNS.values())

    def stories(first, *, agree):
        rows = []
        for seed in range(first, first + 1000):
            rng = random.Random(seed)
            words = grammar.story(rng, 32)
            if not agree:
                places = [{word: place for place, word in enumerate(kind)} for kind in forms]
                words = [
                    next((rng.choice(forms)[kind[word]] for kind in places if word in kind), word) for word in words
                ]
            rows.append([ids[word] for word in words])
        return np.array(rows, dtype=np.uint16)

    paths = []
    for name, rows in (("a", stories(10**6, agree=True)), ("b", stories(2 * 10**6, agree=False))):
        (tmp_path / name).mkdir()
        paths.append(harvested(tmp_path / name, rows, capsys))
    one, other = map(Explorer, paths)
    found = compare(one, other, sort="z", k=20, sources=["embed"], targets=["[0-9]*"])
    pronouns = {word for kind in forms for word in kind}
    assert sum(edge.source.token in pronouns for edge in found.edges) >= 10 > 20 * len(pronouns) / len(ids)
