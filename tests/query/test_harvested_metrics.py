"""Results of attr alone answer as those of both metrics; attr_abs from a share says so in every answer."""

import json

import pytest

from lit_attr.errors import ConfigurationError
from lit_attr.query.answer_json import plain
from lit_attr.query.explorer import Explorer
from lit_attr.query.index_build import build_index
from lit_attr.query.index_file import open_index
from tests.storage.examples import attr_alone, from_a_share, random_storage

QUESTIONS = {
    "sources": lambda explorer, **asked: explorer.sources("0.mlp.up:2", sign="both", **asked),
    "targets": lambda explorer, **asked: explorer.targets("embed:1", sign="both", **asked),
    "sources of the output": lambda explorer, **asked: explorer.sources("output:2", **asked),
    "edge": lambda explorer, **asked: explorer.edge("embed:1", "0.mlp.up:2", **asked),
    "edge to the output": lambda explorer, **asked: explorer.edge("embed:1", "output:2", **asked),
    "edge of an unknown layer": lambda explorer, **asked: explorer.edge("embed:1", "9.mlp.up:2", **asked),
    "subgraph": lambda explorer, **asked: explorer.subgraph(["0.mlp.up:2"], **asked),
    "matrix": lambda explorer, **asked: explorer.matrix(**asked),
    "block": lambda explorer, **asked: explorer.block("embed", "0.mlp.up", **asked),
    "edges": lambda explorer, **asked: explorer.edges(**asked),
    "pair_edges": lambda explorer, **asked: explorer.pair_edges("embed", "0.mlp.up", **asked),
    "layer_pairs": lambda explorer, **asked: explorer.layer_pairs(**asked),
}
# Output tokens have attr alone; layer_pairs is no answer with values.
OF_BOTH = [name for name in QUESTIONS if "output" not in name and "unknown" not in name and name != "layer_pairs"]


def opened(storage, path, *, indexed):
    storage.save(path)
    if indexed:
        build_index(path)
    return Explorer(path)


@pytest.mark.parametrize("indexed", [False, True])
def test_attr_alone(tmp_path, indexed):
    both = opened(random_storage(), tmp_path / "both.pt", indexed=indexed)
    alone = opened(attr_alone(), tmp_path / "alone.pt", indexed=indexed)
    assert (alone.is_indexed, alone.metrics) == (indexed, ("attr",))
    for name in OF_BOTH:
        assert json.dumps(plain(QUESTIONS[name](alone))) == json.dumps(plain(QUESTIONS[name](both)))
    for ask in QUESTIONS.values():
        with pytest.raises(
            ConfigurationError, match=r"attr_abs was not harvested \(--model.metrics attr\): ask for attr"
        ):
            ask(alone, metric="attr_abs")


def test_an_index_of_attr_alone_has_no_lists_of_attr_abs(tmp_path):
    indexes = []
    for storage, path in ((random_storage(), tmp_path / "both.pt"), (attr_alone(), tmp_path / "alone.pt")):
        storage.save(path)
        indexes.append(open_index(build_index(path)))
    assert [index.contents["metrics"] for index in indexes] == [["attr", "attr_abs"], ["attr"]]
    assert [index.sections["targets/embed/components"].n_lists for index in indexes] == [8, 4]
    assert {metric for *_, metric, _, _ in indexes[1].pairs} == {"attr"}


@pytest.mark.parametrize("name", OF_BOTH)
def test_a_share_is_said_in_every_answer(tmp_path, name):
    ask, explorer = QUESTIONS[name], opened(from_a_share(0.25, 3), tmp_path / "x.pt", indexed=False)
    assert plain(ask(explorer, metric="attr_abs"))["sample"] == {"share": 0.25, "n_tokens": 3, "n_all_tokens": 10}
    assert plain(ask(explorer))["sample"] is None
