import pytest

from lit_attr.errors import KeyFormatError, LitAttrError
from lit_attr.topology.address import EMBED, MATRICES, OUTPUT, ComponentKey, block_address, in_order


@pytest.mark.parametrize(
    ("text", "layer", "index"),
    [
        ("0.mlp.up:5", "0.mlp.up", 5),
        ("11.attn.q:0", "11.attn.q", 0),
        ("0.attn_fused.qkv:3", "0.attn_fused.qkv", 3),
        ("embed:50256", "embed", 50256),
        ("output:17", "output", 17),
        ("0.mlp.up:007", "0.mlp.up", 7),
        ("a:b:3", "a:b", 3),
    ],
)
def test_key_is_split_at_the_last_colon(text: str, layer: str, index: int):
    assert ComponentKey.parse(text) == ComponentKey(layer, index)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "0.mlp.up",
        "0.mlp.up:",
        ":5",
        "  :5",
        "0.mlp.up:-1",
        "0.mlp.up:+1",
        "0.mlp.up:1.0",
        "0.mlp.up:1_0",
        "0.mlp.up: 5",
        "0.mlp.up:5 ",
        "0.mlp.up:5\n",
        "0.mlp.up:five",
        "0.mlp.up:\uff15",
        "0.mlp.up:²",
        "5:0.mlp.up",
    ],
)
def test_malformed_key_is_refused_with_the_key_and_the_form(text: str):
    with pytest.raises(KeyFormatError) as caught:
        ComponentKey.parse(text)
    assert str(caught.value) == (
        f"malformed component key {text!r}: expected '<layer>:<index>', such as '0.mlp.up:5', 'embed:17' or 'output:17'"
    )


def test_malformed_key_is_a_value_error_of_the_package():
    assert issubclass(KeyFormatError, ValueError)
    assert issubclass(KeyFormatError, LitAttrError)


@pytest.mark.parametrize("layer", [EMBED, OUTPUT, *(block_address(3, matrix) for matrix in MATRICES)])
def test_text_of_a_key_parses_to_the_key(layer: str):
    key = ComponentKey(layer, 12)
    assert ComponentKey.parse(str(key)) == key


@pytest.mark.parametrize(
    ("block", "matrix", "address"),
    [(0, "attn.q", "0.attn.q"), (10, "glu.gate", "10.glu.gate"), (2, "mlp.up", "2.mlp.up")],
)
def test_block_address_puts_the_block_before_the_matrix(block: int, matrix: str, address: str):
    assert block_address(block, matrix) == address


def test_matrices_are_those_of_the_grammar():
    assert set(MATRICES) == {
        *("attn.q", "attn.k", "attn.v", "attn.o", "attn_fused.qkv", "attn_fused.o"),
        *("glu.up", "glu.down", "glu.gate", "mlp.up", "mlp.down"),
    }


def test_layers_in_order():
    names = ["output", "10.attn.q", "2.mlp.down", "2.attn.o", "embed", "2.attn.q"]
    assert in_order(names) == ("embed", "2.attn.q", "2.attn.o", "2.mlp.down", "10.attn.q", "output")
