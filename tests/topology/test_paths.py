import pytest

from lit_attr.errors import UnsupportedModelError
from lit_attr.topology.address import MATRICES
from lit_attr.topology.paths import PATH_TABLES, path_table
from tests.toys import ARCHITECTURES, toy_model

ATTENTION = {
    "h.{}.attn.q_proj": "{}.attn.q",
    "h.{}.attn.k_proj": "{}.attn.k",
    "h.{}.attn.v_proj": "{}.attn.v",
    "h.{}.attn.o_proj": "{}.attn.o",
}
MLP = {"h.{}.mlp.c_fc": "{}.mlp.up", "h.{}.mlp.down_proj": "{}.mlp.down"}
GLU = {
    "h.{}.mlp.gate_proj": "{}.glu.gate",
    "h.{}.mlp.up_proj": "{}.glu.up",
    "h.{}.mlp.down_proj": "{}.glu.down",
}
EXPECTED = {"LlamaSimpleMLP": ATTENTION | MLP, "LlamaSimple": ATTENTION | GLU, "GPT2Simple": ATTENTION | MLP}
ROWS = [(a, path, address) for a, rows in EXPECTED.items() for path, address in rows.items()]


@pytest.mark.parametrize("block", [0, 7, 10, 123])
@pytest.mark.parametrize(("architecture", "path", "address"), ROWS)
def test_matrix_of_a_block_has_the_address_of_the_specification(architecture: str, path: str, address: str, block: int):
    assert path_table(architecture).address(path.format(block)) == address.format(block)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("path", "address"), [("wte", "embed"), ("lm_head", "output")])
def test_embedding_and_unembedding_have_addresses(architecture: str, path: str, address: str):
    assert path_table(architecture).address(path) == address


@pytest.mark.parametrize(
    ("architecture", "path"),
    [
        ("LlamaSimpleMLP", "h.0.mlp.gate_proj"),
        ("LlamaSimpleMLP", "h.0.attn.c_attn"),
        ("LlamaSimpleMLP", "h.0.rms_1"),
        ("LlamaSimpleMLP", "h.0.attn.q_proj.pre_identity"),
        ("LlamaSimpleMLP", "transformer.h.0.mlp.c_fc"),
        ("LlamaSimpleMLP", "hx0.mlp.c_fc"),
        ("LlamaSimpleMLP", "h.0xmlp.c_fc"),
        ("LlamaSimpleMLP", "h.x.mlp.c_fc"),
        ("LlamaSimpleMLP", "h..mlp.c_fc"),
        ("LlamaSimpleMLP", ""),
        ("LlamaSimple", "h.0.mlp.c_fc"),
        ("GPT2Simple", "wpe"),
        ("GPT2Simple", "ln_f"),
    ],
)
def test_path_without_address_is_refused_with_the_addressable_paths(architecture: str, path: str):
    with pytest.raises(UnsupportedModelError) as caught:
        path_table(architecture).address(path)
    message = str(caught.value)
    assert message.startswith(f"module {path!r} of {architecture} has no canonical address; addressable are: wte, ")
    assert message.endswith(", lm_head")
    assert all(known.format("{block}") in message for known in EXPECTED[architecture])


def test_unknown_architecture_is_refused_with_the_known_ones():
    message = "unknown target model class 'Llama'; known are: LlamaSimpleMLP, LlamaSimple, GPT2Simple"
    with pytest.raises(UnsupportedModelError, match=f"^{message}$"):
        path_table("Llama")


def test_every_architecture_has_a_table_of_its_own_name():
    assert {name: table.architecture for name, table in PATH_TABLES.items()} == {a: a for a in ARCHITECTURES}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_matrices_of_a_table_are_those_of_the_grammar(architecture: str):
    assert path_table(architecture).blocks.keys() <= set(MATRICES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fully_decomposed_model_has_an_address_for_every_matrix(architecture: str):
    expected = {
        address.format(block): path.format(block)
        for path, address in EXPECTED[architecture].items()
        for block in (0, 1)
    }
    assert toy_model(architecture).paths == expected


@pytest.mark.parametrize("architecture", PATH_TABLES)
def test_path_is_the_inverse_of_address(architecture: str):
    table = path_table(architecture)
    paths = [table.embed, table.output]
    paths += [path.replace("{block}", str(block)) for path in table.blocks.values() for block in (0, 7, 12)]
    addresses = [table.address(path) for path in paths]
    assert len(set(addresses)) == len(paths)
    assert [table.path(address) for address in addresses] == paths
