"""A file of strongest edges: what it answers is what the whole result answers, and what it lacks is said."""

import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_attr.cli.answer_remarks import remarks
from lit_attr.errors import ConfigurationError, NotHeldError, StorageError
from lit_attr.export.form import export_form
from lit_attr.export.tensors import export_safetensors
from lit_attr.query import list_writing, listed_edges, running_lists
from lit_attr.query.answer_json import plain
from lit_attr.query.explorer import Explorer
from lit_attr.query.index_build import build_index
from lit_attr.query.strongest_build import write_strongest
from lit_attr.storage import strongest_file
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.compact import compacted, dense
from lit_attr.storage.strongest_file import StrongestFile
from lit_attr.storage.verify import verify
from lit_attr.topology.address import ComponentKey
from lit_attr.topology.words import ANY_SIGNS
from tests.query.examples import all_edges, storages
from tests.storage.examples import attr_alone, partly_harvested, random_storage

MEASURES = list(product(("attr", "attr_abs"), (False, True)))


def opened(storage, folder, k, form):
    """A result with its index, whose products are those of the tiles that lists are made from, and its strongest."""
    path = Path(folder) / "dataset_attributions.pt"
    storage.save(path)
    build_index(path)
    return Explorer(path), Explorer(write_strongest(Blocks(form(storage)), Path(folder) / "x.strongest", k))


def with_ties(storage):
    for _, tensor in [*storage.named_sums(), ("w_unembed", storage.w_unembed)]:
        if tensor.is_floating_point():
            tensor.mul_(2).round_().div_(2)


def rows(storage, metric, normalized):
    """Every row of edges by brute force: question, key, kind of neighbours, and their values by layer and index."""
    found = {}
    for (source, target), block in all_edges(storage, metric, normalized).items():
        for (t, s), value in np.ndenumerate(block):
            kinds = [layer if layer in ("embed", "output") else "components" for layer in (source, target)]
            found.setdefault(("targets", f"{source}:{s}", kinds[1]), {})[target, t] = value
            found.setdefault(("sources", f"{target}:{t}", kinds[0]), {})[source, s] = value
    return found


def layers_of(explorer, kind):
    return [layer for layer in explorer.layers if kind in (layer, "components") and (kind == layer or "." in layer)]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """So small that every boundary is crossed."""
    monkeypatch.setattr(list_writing, "_N_KEYS", 2)
    monkeypatch.setattr(list_writing, "_N_NEIGHBOURS", 3)
    monkeypatch.setattr(running_lists, "_COUNTED", 4)
    monkeypatch.setattr(listed_edges, "_N_TARGETS", 2)


def check_all(storage, k, has_ties, is_compact, pick):
    if has_ties:
        with_ties(storage)
    with tempfile.TemporaryDirectory() as folder:
        whole, strongest = opened(storage, folder, k, compacted if is_compact else dense)
        assert strongest.metrics == whole.metrics
        check_edges(whole, strongest)
        for metric, normalized in (measure for measure in MEASURES if measure[0] in whole.metrics):
            asked = {"metric": metric, "normalized": normalized}
            assert strongest.matrix(**asked).values == whole.matrix(**asked).values
            for by, sign in product(("pair", "strength"), ANY_SIGNS):
                pairs = [one.edges(k=k, by=by, sign=sign, **asked) for one in (whole, strongest)]
                assert pairs[1].edges == pairs[0].edges
                assert pairs[1].not_held is None
            for (question, key, kind), values in pick(list(rows(storage, metric, normalized).items())):
                for sign in ANY_SIGNS:
                    asked |= {"sign": sign, "layers": layers_of(whole, kind)}
                    all_of_sign = getattr(whole, question)(key, k=99, **asked).entries
                    for n in (1, k, 99):
                        found = getattr(strongest, question)(key, k=n, **asked)
                        assert found.entries == all_of_sign[: len(found.entries)]
                        if n <= k or found.not_held is None:
                            assert found.not_held is None
                            assert len(found.entries) == min(n, len(all_of_sign))
                    if sign != "both":
                        check_rest(found, np.array(list(values.values())), all_of_sign, k)


def check_rest(found, values, all_of_sign, k):
    """What is not held, by counting and by brute force in double precision."""
    assert len(found.entries) == min(k, len(all_of_sign))
    n_missing = len(all_of_sign) - len(found.entries)
    assert (found.not_held.n if found.not_held else 0) == n_missing
    if n_missing:
        mass = abs(values[(values > 0) == (all_of_sign[0].value > 0)]).sum()
        mass -= sum(abs(entry.value) for entry in found.entries)
        assert found.not_held.mass == pytest.approx(mass, abs=1e-6 * abs(values).sum())


def check_edges(whole, strongest):
    """An edge is what it is, or is not held: then it is none of the strongest of its source or its target."""
    n_missing = 0
    for metric in whole.metrics:
        for (source, target), block in all_edges(whole.storage, metric, normalized=False).items():
            for t, s in np.ndindex(*block.shape):
                ends = f"{source}:{s}", f"{target}:{t}"
                right, found = (one.edge(*ends, metric=metric) for one in (whole, strongest))
                if found.is_held:
                    # Products are made in double precision, of one edge otherwise than of a tile.
                    known = (right.raw, right.normalized)
                    assert (found.raw, found.normalized) == (pytest.approx(known) if target == "output" else known)
                else:
                    n_missing += 1
                    assert (found.raw, found.normalized, found.was_harvested) == (None, None, True)
                    asked = {"metric": metric, "sign": "both", "k": 1}
                    for way, key, other in (("targets", *ends), ("sources", *ends[::-1])):
                        known = getattr(strongest, way)(key, layers=[other.rpartition(":")[0]], **asked)
                        assert other not in [entry.component_key for entry in known.entries]
    return n_missing


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(storages(), st.integers(1, 3), st.booleans(), st.booleans(), st.randoms())
def test_answers_are_those_of_the_whole_result(storage, k, has_ties, is_compact, random):
    check_all(storage, k, has_ties, is_compact, lambda found: random.sample(found, min(len(found), 4)))


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(storages(), st.integers(1, 3), st.booleans(), st.booleans())
def test_all_answers_are_those_of_the_whole_result(storage, k, has_ties, is_compact):
    check_all(storage, k, has_ties, is_compact, lambda found: found)


@pytest.fixture
def file(tmp_path):
    """A file of strongest edges in which most lists lack something."""
    return write_strongest(Blocks(random_storage()), tmp_path / "x.strongest", 1)


def test_what_is_not_held_is_said(file, tmp_path):
    explorer, storage = Explorer(file), random_storage()
    row = all_edges(storage, "attr", normalized=True)["embed", "0.mlp.up"][1]
    strongest = max(row, key=abs)
    asked = {"k": 3, "layers": ["embed"]}
    answer = explorer.sources("0.mlp.up:1", sign="positive" if strongest > 0 else "negative", **asked)
    assert [entry.value for entry in answer.entries] == pytest.approx([strongest])
    others = row[(np.sign(row) == np.sign(strongest)) & (row != strongest)]
    assert answer.not_held.n == len(others) > 0
    # The token that never occurred has a value of 1e10: what is small beside it is known to the last bits of that.
    assert answer.not_held.mass == pytest.approx(abs(others).sum(), abs=1e-15 * abs(row).sum())
    assert list(remarks(answer)) == [str(answer.not_held), "no standard errors: they were not harvested"]
    graph = explorer.subgraph(["0.mlp.up:1"], k=9, depth=1)
    assert graph.not_held.n > len(others)
    weak = int(abs(row).argmin())
    edge = explorer.edge(f"embed:{weak}", "0.mlp.up:1")
    assert (edge.raw, edge.is_held, edge.was_harvested) == (None, False, True)
    assert plain(edge)["is_held"] is False
    assert any("neither among those of its source" in line for line in remarks(edge))
    assert explorer.n_kept == 1
    for ask in (
        lambda: explorer.block("embed", "0.mlp.up"),
        lambda: explorer.storage.get_top_sources("0.mlp.up:1"),
        lambda: explorer.storage.get_attribution("embed:0", "0.mlp.up:1"),
        lambda: explorer.storage.save(tmp_path / "y.pt"),
        lambda: type(storage).merge([file]),
        lambda: build_index(file),
        lambda: export_safetensors(explorer.storage, tmp_path / "st"),
        lambda: export_form(explorer.storage, tmp_path / "c.pt", compact=True),
        lambda: write_strongest(Blocks(explorer.storage), tmp_path / "y.strongest"),
        lambda: list(explorer.strongest("pair", k=9)),
        lambda: list(explorer.strongest("target", k=9)),
    ):
        with pytest.raises(NotHeldError, match="strongest"):
            ask()
    assert {path.name for path in tmp_path.iterdir()} == {"x.strongest"}


def test_layers_that_exhaust_a_list(file):
    """Of the asked layers fewer are kept than asked for: what is answered is the beginning of the true list."""
    explorer, storage = Explorer(file), random_storage()
    rest = []
    for source in range(5):
        right = {k: v for k, v in column_of(storage, source).items() if k[0] == "0.attn.q" and v > 0}
        found = explorer.targets(f"embed:{source}", k=2, layers=["0.attn.q"])
        wanted = sorted(right.values(), reverse=True)[: len(found.entries)]
        assert [entry.value for entry in found.entries] == pytest.approx(wanted)
        if len(found.entries) < min(len(right), 2):
            assert found.not_held.n >= len(right) - len(found.entries)
            rest.append(found.not_held)
    assert rest


def column_of(storage, source):
    blocks = all_edges(storage, "attr", normalized=True)
    return {(t, i): block[i, source] for (s, t), block in blocks.items() if s == "embed" for i in range(len(block))}


def edges_of(tables):
    return {
        (edges.source_layers[place], source, edges.target_layer, target): (raw, value)
        for edges in tables
        for place, source, target, raw, value in zip(
            edges.source_places, edges.sources, edges.targets, edges.raw, edges.normalized, strict=True
        )
    }


@pytest.mark.parametrize("metric", ["attr", "attr_abs"])
@pytest.mark.parametrize("per", ["pair", "target"])
def test_tables(tmp_path, per, metric):
    storage = random_storage()
    storage.save(tmp_path / "x.pt")
    whole, strongest = (
        Explorer(tmp_path / "x.pt"),
        Explorer(write_strongest(Blocks(storage), tmp_path / "x.strongest", 2)),
    )
    for k in (1, 2):
        right, found = (edges_of(one.strongest(per, k=k, metric=metric)) for one in (whole, strongest))
        assert found.keys() == right.keys()
        for key, values in found.items():
            assert values == pytest.approx(right[key], rel=1e-5)


def test_what_was_not_harvested_stays_so(tmp_path):
    storage = partly_harvested({"0.mlp.up": [1]})
    explorer = Explorer(write_strongest(Blocks(storage), tmp_path / "x.strongest"))
    edge, ranking = explorer.edge("embed:0", "0.mlp.up:1"), explorer.sources("0.mlp.up:1")
    assert (edge.raw, edge.was_harvested, edge.is_held) == (None, False, True)
    assert (ranking.was_harvested, ranking.entries, ranking.not_held) == (False, (), None)
    assert explorer.targets("embed:0").n_not_harvested == 1


def test_a_layer_that_is_dead(tmp_path):
    """In the compact form it has no places, neither as source nor as target."""
    storage = partly_harvested({"0.attn.q": [0, 1]})
    storage.ci_sum["0.attn.q"].zero_()
    for nested in (storage.regular_attr, storage.regular_attr_abs):
        nested["0.mlp.up"]["0.attn.q"].zero_()
    explorer = Explorer(write_strongest(Blocks(compacted(storage)), tmp_path / "x.strongest"))
    assert explorer.targets("0.attn.q:1").entries == ()
    assert explorer.edge("0.attn.q:1", "0.mlp.up:2").raw == 0
    assert [entry.layer for entry in explorer.sources("0.mlp.up:2", sign="both").entries] == ["embed"] * 5
    assert explorer.edge("embed:1", "0.attn.q:1").raw is None


def test_attr_alone(tmp_path):
    explorer = Explorer(write_strongest(Blocks(attr_alone()), tmp_path / "x.strongest"))
    assert explorer.metrics == ("attr",)
    with pytest.raises(ConfigurationError, match="attr_abs was not harvested"):
        explorer.sources("0.mlp.up:1", metric="attr_abs")


@pytest.mark.parametrize("k", [0, 1.5])
def test_numbers_that_are_none(tmp_path, k):
    with pytest.raises(ConfigurationError, match="k must be a whole number"):
        write_strongest(Blocks(random_storage()), tmp_path / "x.strongest", k)


def test_values_that_are_not_finite(tmp_path):
    storage = random_storage()
    storage.embed_attr["0.mlp.up"][1, 3] = float("nan")
    with pytest.raises(StorageError, match=r"no file of strongest edges: .*not finite"):
        write_strongest(Blocks(storage), tmp_path / "x.strongest")
    assert not list(tmp_path.iterdir())


def ask_everything(path):
    explorer = Explorer(path)
    layers = explorer.layers
    for layer, size in layers.items():
        for index in range(size):
            key = ComponentKey(layer, index)
            for way, ask in ((explorer.has_target, explorer.sources), (explorer.has_source, explorer.targets)):
                for metric in ("attr", "attr_abs") if way(key) and layer != "output" else ("attr",) if way(key) else ():
                    ask(str(key), metric=metric, sign="both")
    explorer.edges(), explorer.matrix()
    verify(path)


def test_damage_is_an_error(file):
    """Wherever a byte is flipped or the file ends: someone who asks everything, or verifies, is told."""
    data = file.read_bytes()
    ask_everything(file)
    start = len(b"\nlit_attr strongest\n")
    for place in [*range(start, len(data), 211), len(data) - 1, len(data) - 30]:
        file.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        with pytest.raises(StorageError, match=r"x\.strongest"):
            verify(file)
    for length in (*range(start, len(data), 499), len(data) - 1):
        file.write_bytes(data[:length])
        with pytest.raises(StorageError, match="does not end as a file of strongest edges does"):
            Explorer(file)
    records = StrongestFile(file) if file.write_bytes(data) else None
    section = records.sections["sources/0.mlp.up/embed"]
    file.write_bytes(data[: section.offset] + bytes(section.nbytes) + data[section.offset + section.nbytes :])
    with pytest.raises(StorageError, match=r"record 1 of sources/0\.mlp\.up/embed is not what was written"):
        Explorer(file).sources("0.mlp.up:1")


def test_another_version(file, monkeypatch):
    monkeypatch.setattr(
        strongest_file,
        "STRONGEST_FORMAT",
        replace(strongest_file.STRONGEST_FORMAT, sections={2: strongest_file.SureSection}),
    )
    with pytest.raises(
        StorageError, match=r"has version 1, which this version of lit_attr does not know \(it knows 2\)"
    ):
        Explorer(file)


def test_verify(file):
    lines = verify(file)
    assert lines[0].startswith("strongest edges alone, 1 of each list: check sums of ")
    assert any(line.startswith("tokens: 10, as counted") for line in lines)


def test_an_earlier_file_is_replaced_and_nothing_else(file, tmp_path):
    storage = Blocks(random_storage(1))
    with pytest.raises(StorageError, match="--overwrite replaces it"):
        write_strongest(storage, file)
    write_strongest(storage, file, 2, overwrite=True)
    assert Explorer(file).n_kept == 2
    random_storage().save(tmp_path / "x.pt")
    with pytest.raises(StorageError, match="is not replaced"):
        write_strongest(storage, tmp_path / "x.pt", overwrite=True)
