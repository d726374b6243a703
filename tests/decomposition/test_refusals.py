"""Contents that no sane run has: each ends in our own exception, whose message says what was expected."""

import sqlite3

import pytest
import torch

from lit_attr.decomposition.checkpoint import read_checkpoint
from lit_attr.decomposition.harvest_db import alive_in_harvest
from lit_attr.decomposition.reference import RunReference
from lit_attr.errors import RunFormatError
from tests.decomposition.test_ci_options import residual, transformer
from tests.toys import toy_model


@pytest.mark.parametrize(
    ("ci_config", "message"),
    [
        (residual(block_groups=[{"patterns": ["h.*"]}]), r"block_groups must be a list of \{name: text, patterns"),
        (residual(block_groups={"a": ["h.*"]}), r"block_groups must be a list of \{name: text, patterns"),
        (residual(block_groups=[{"name": "a", "patterns": "h.*"}]), r"block_groups must be a list of \{name: text"),
        (residual(block_groups=[{"name": "a", "patterns": []}]), r"block_groups must be a list of \{name: text"),
        (
            residual(block_groups=[{"name": "a.b", "patterns": ["h.1.*"]}, {"name": "a-b", "patterns": ["h.0.*"]}]),
            r"names that are equal, or equal but for \. and -: \['a-b', 'a-b'\]",
        ),
        (residual(d_resid_ci_fn="8"), "d_resid_ci_fn must be a positive integer, found '8'"),
        (residual(transition_hidden_dim=0), "transition_hidden_dim must be a positive integer, found 0"),
        (transformer(attn_config=[2]), r"attn_config must be a mapping, found \[2\]"),
        (transformer(attn_config={"n_heads": 0}), "n_heads must be a positive integer, found 0"),
        (transformer(attn_config={"n_heads": 2, "rope_base": -1}), "rope_base must be a positive number, found -1"),
        (transformer(d_model=True), "d_model must be a positive integer, found True"),
        (
            {"mode": "layerwise", "fn_type": "shared_mlp", "hidden_dims": 6},
            "hidden_dims must be a list of positive integers, found 6",
        ),
        (
            {"mode": "layerwise", "fn_type": "shared_mlp", "hidden_dims": [0]},
            r"hidden_dims must be a list of positive integers, found \[0\]",
        ),
        ({"mode": "layerwise", "fn_type": ["mlp"], "hidden_dims": [3]}, "unknown mode/fn_type"),
        (
            {
                **{"mode": "global", "fn_type": "global_shared_mlp", "hidden_dims": [3]},
                "transition_attn_config": {"n_heads": 2},
            },
            "transition_attn_config has no meaning for global_shared_mlp",
        ),
    ],
)
def test_ci_options(ci_config, message):
    with pytest.raises(RunFormatError, match=message):
        toy_model(ci_config=ci_config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_embd": 12, "n_head": 4}, "rotary positions need an even head width, found 3"),
        ({"n_head": 0}, "n_head must be positive, found 0"),
        ({"n_layer": True}, "n_layer must be of type int, found True"),
        ({"n_ctx": -1}, "n_ctx must be positive, found -1"),
        ({"rotary_base": 0}, "rotary_base must be positive, found 0"),
        ({"mlp_bias": 1}, "mlp_bias must be of type bool, found 1"),
    ],
)
def test_model_options(options, message):
    with pytest.raises(RunFormatError, match=message):
        toy_model(model_options=options)


def test_run_options():
    with pytest.raises(RunFormatError, match="sigmoid_type must be one of"):
        toy_model(sigmoid_type=["hard"])
    with pytest.raises(RunFormatError, match=r"C: positive integer\}, found"):
        toy_model(module_info=[{"module_pattern": "h.0.mlp.c_fc", "C": True}])


@pytest.mark.parametrize("text", ["./spd/s-12345678", "../spd/s-12345678", "~/spd/s-12345678", "./a/runs/s-12345678"])
def test_paths_that_begin_as_paths_do_are_no_references(text):
    assert RunReference.match(text) is None


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({1: torch.zeros(1)}, "expected a state dict"),
        (
            {"_components.a.U": torch.zeros(1), "a.components.U": torch.ones(1)},
            r"tensors under both an old and a new name: _components\.a\.U",
        ),
    ],
)
def test_checkpoints(tmp_path, state, message):
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(RunFormatError, match=message):
        read_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("row", "config", "message"),
    [
        (("h.0.mlp.c_fc:0", 0.5), "{", "method_config is no JSON"),
        (
            (b"h.0.mlp.c_fc:0", 0.5),
            "{}",
            "expected component keys and firing densities, found b'h",
        ),
        (("h.0.mlp.c_fc:0", None), "{}", "found 'h.0.mlp.c_fc:0' and None"),
        (("h.0.mlp.c_fc:0", 0.5), None, None),
        (("h.0.mlp.c_fc:0", 0.5), "[1]", None),
    ],
)
def test_harvest_databases(tmp_path, row, config, message):
    connection = sqlite3.connect(tmp_path / "h.db")
    connection.execute("CREATE TABLE components (component_key, firing_density)")
    connection.execute("CREATE TABLE config (key, value)")
    connection.execute("INSERT INTO components VALUES (?, ?)", row)
    connection.execute("INSERT INTO config VALUES ('method_config', ?)", (config,))
    connection.commit()
    connection.close()

    def read():
        return alive_in_harvest(tmp_path / "h.db", {"0.mlp.up": "h.0.mlp.c_fc"}, {"0.mlp.up": 2}, "s-toytoy00")

    if message is None:
        assert read()["0.mlp.up"].tolist() == [True, False]
    else:
        with pytest.raises(RunFormatError, match=message):
            read()
