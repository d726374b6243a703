"""Sure edges are those of a full list that are sure, from every form of a result."""

from dataclasses import replace

import pytest

from lit_attr.errors import ConfigurationError
from lit_attr.query.answers import n_separated
from lit_attr.query.explorer import Explorer
from tests.query.estimated import told_apart

FORMS = ["dense", "dense with index", "strongest"]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return told_apart(tmp_path_factory.mktemp("sure"))


def is_beyond_zero(one):
    return one.interval is not None and one.interval[0] * one.interval[1] > 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("first", [1, 64], ids=["looked at anew", "looked at once"])
def test_sure_ones_are_the_strongest_whose_intervals_are_beyond_zero(opened, monkeypatch, form, first):
    monkeypatch.setattr("lit_attr.query.sure_edges._FIRST", first)
    explorer, plain_one = opened[form], opened["dense"]
    n_left_out = 0
    for key in ("0.attn.o:1", "0.attn.q:0", "output:3"):
        for normalized in (False, True):
            asked = {"sign": "both", "normalized": normalized}
            everything = plain_one.sources(key, k=10_000, **asked).entries
            expected = [entry for entry in everything if is_beyond_zero(entry)]
            for k in (1, 3, len(everything)):
                answer = explorer.sources(key, k=k, sure=True, **asked)
                shown = answer.entries
                assert list(shown) == expected[:k]
                last = everything.index(shown[-1]) + 1 if len(shown) == k else len(everything)
                assert answer.n_unsure == last - len(shown)
                n_left_out += answer.n_unsure
    assert n_left_out
    assert explorer.sources("0.attn.o:1").n_unsure is None


@pytest.mark.parametrize("form", FORMS)
def test_sure_edges_of_pairs_and_around_keys(opened, form):
    explorer = opened[form]
    everything = opened["dense"].pair_edges("embed", "0.attn.q", k=10_000).edges
    answer = explorer.pair_edges("embed", "0.attn.q", k=4, sure=True)
    assert list(answer.edges) == [edge for edge in everything if is_beyond_zero(edge)][:4]
    assert answer.n_unsure == everything.index(answer.edges[-1]) + 1 - 4
    assert answer.n_separated == n_separated(answer.edges)
    graph = explorer.subgraph(["0.attn.o:1"], k=4, depth=1, sure=True)
    ways = [ask("0.attn.o:1", k=4, sign="both", sure=True) for ask in (explorer.sources, explorer.targets)]
    assert [edge.value for edge in graph.edges] == [entry.value for way in ways for entry in way.entries]
    assert graph.n_unsure == sum(way.n_unsure for way in ways)
    bound = max(abs(edge.value) for edge in graph.edges)
    assert explorer.subgraph(["0.attn.o:1"], threshold=2 * bound, sure=True).n_unsure == 0
    assert explorer.subgraph(["0.attn.o:1"]).n_unsure is None


def test_weaker_ones_than_the_first_few_thousand_are_not_looked_at(opened, monkeypatch):
    monkeypatch.setattr("lit_attr.query.sure_edges._FIRST", 1)
    monkeypatch.setattr("lit_attr.query.sure_edges.MOST_LOOKED_AT", 3)
    first = opened["dense"].sources("output:3", k=3, sign="both").entries
    answer = opened["dense"].sources("output:3", k=3, sign="both", sure=True)
    sure = [entry for entry in first if is_beyond_zero(entry)]
    assert (list(answer.entries), answer.n_unsure) == (sure, 3 - len(sure))
    assert 0 < len(sure) < 3
    # Whoever asks for more has more looked at.
    assert len(opened["dense"].sources("output:3", k=4, sign="both", sure=True).entries) > len(sure)


def test_sure_ones_of_a_result_without_standard_errors(opened, tmp_path):
    replace(opened["dense"].storage, standard_errors=None).save(tmp_path / "x.pt")
    explorer = Explorer(tmp_path / "x.pt")
    for ask in (
        lambda: explorer.sources("0.attn.o:1", sure=True),
        lambda: explorer.pair_edges("embed", "0.attn.q", sure=True),
        lambda: explorer.subgraph(["0.attn.o:1"], sure=True),
    ):
        with pytest.raises(ConfigurationError, match=r"which edges are sure .* the result has no standard errors"):
            ask()
