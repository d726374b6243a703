import pytest

from lit_attr.decomposition.model import DecomposedModel
from lit_attr.errors import ConfigurationError
from lit_attr.harvest.harvester import AttributionHarvester
from tests.harvest.runs import assert_same, harvest
from tests.toys import write_run, write_tokens

PARTIAL = {"module_info": [{"module_pattern": "h.*.mlp.*_*", "C": 4}]}


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "spd-s-toytoy00")


@pytest.fixture
def partial(tmp_path):
    return write_run(tmp_path / "spd-s-partial0", **PARTIAL)


@pytest.fixture
def tokens(tmp_path):
    return write_tokens(tmp_path / "tokens.npy", n_rows=4)


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"alive_batches": 1, "ci_threshold": 0.4}, marks=pytest.mark.slow)]
)
def test_engines_agree(run, tokens, tmp_path, options):
    names = ("autograd", "closed_form", "auto")
    found = [harvest(AttributionHarvester(run, engine=name, **options), tokens, tmp_path / name) for name in names]
    for other in found[1:]:
        assert_same(other, found[0])


def test_both_engines_in_one_harvest(partial, tokens, tmp_path):
    auto, autograd = (
        harvest(AttributionHarvester(partial, engine=name), tokens, tmp_path / name) for name in ("auto", "autograd")
    )
    assert_same(auto, autograd)
    assert auto.provenance["engine"] == "auto"
    assert auto.provenance["engine_blocks"]["closed_form"] == [
        "0.mlp.up->0.mlp.down",
        "1.mlp.up->1.mlp.down",
        "1.mlp.down->output",
    ]
    assert len(auto.provenance["engine_blocks"]["forward_mode"]) == 5
    assert list(autograd.provenance["engine_blocks"]) == ["autograd"]


def test_the_choice_is_logged_once(partial, tokens, tmp_path, caplog):
    with caplog.at_level("INFO"):
        harvest(AttributionHarvester(partial), tokens, tmp_path, batch_size=1)
    lines = [line for line in caplog.messages if "edge blocks" in line]
    assert len(lines) == 1
    assert "closed_form for 3 of 8 edge blocks" in lines[0]
    assert "forward_mode for 5 of 8 edge blocks" in lines[0]


def test_closed_form_alone_is_refused_before_the_first_batch(partial, tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(AttributionHarvester, "predict_step", lambda *_: pytest.fail("a batch was harvested"))
    with pytest.raises(ConfigurationError, match=r"model\.engine closed_form: 5 edge blocks have no closed form"):
        harvest(AttributionHarvester(partial, engine="closed_form"), tokens, tmp_path)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 1024 << 20),
        ({"workspace_mb": 3}, 3 << 20),
        ({"workspace_mb": 3, "memory_gb": 0.004}, 2_000_000),
        ({"workspace_mb": 3, "memory_gb": 1.0}, 3 << 20),
    ],
)
def test_workspace_is_what_was_set_and_at_most_half_of_the_memory(run, tokens, tmp_path, options, expected):
    harvester = AttributionHarvester(run, **{"memory_gb": 8.0, **options})
    harvest(harvester, tokens, tmp_path)
    assert harvester.engine.reserved_bytes == expected


@pytest.mark.parametrize(("engine", "graph"), [("auto", False), ("autograd", True)])
def test_graphs_are_kept_for_gradients_alone(run, tokens, tmp_path, monkeypatch, engine, graph):
    forward, asked = DecomposedModel.component_forward, []

    def watched(model, tokens, **options):
        asked.append(options)
        return forward(model, tokens, **options)

    monkeypatch.setattr(DecomposedModel, "component_forward", watched)
    harvest(AttributionHarvester(run, engine=engine), tokens, tmp_path)
    assert asked[-2:] == [{"graph": graph}] * 2
