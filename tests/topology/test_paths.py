import pytest

from lit_attr.errors import UnsupportedModelError
from lit_attr.topology.address import MATRICES
from lit_attr.topology.paths import PATH_TABLES, PathTable, path_table
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
GPT2 = {
    "transformer.h.{}.attn.c_attn": "{}.attn_fused.qkv",
    "transformer.h.{}.attn.c_proj": "{}.attn_fused.o",
    "transformer.h.{}.mlp.c_fc": "{}.mlp.up",
    "transformer.h.{}.mlp.c_proj": "{}.mlp.down",
}
GPT_NEOX = {
    "gpt_neox.layers.{}.attention.query_key_value": "{}.attn_fused.qkv",
    "gpt_neox.layers.{}.attention.dense": "{}.attn_fused.o",
    "gpt_neox.layers.{}.mlp.dense_h_to_4h": "{}.mlp.up",
    "gpt_neox.layers.{}.mlp.dense_4h_to_h": "{}.mlp.down",
}
LLAMA = {
    "model.layers.{}.self_attn.q_proj": "{}.attn.q",
    "model.layers.{}.self_attn.k_proj": "{}.attn.k",
    "model.layers.{}.self_attn.v_proj": "{}.attn.v",
    "model.layers.{}.self_attn.o_proj": "{}.attn.o",
    "model.layers.{}.mlp.gate_proj": "{}.glu.gate",
    "model.layers.{}.mlp.up_proj": "{}.glu.up",
    "model.layers.{}.mlp.down_proj": "{}.glu.down",
}
OTHERS = {
    "GPT2LMHeadModel": GPT2,
    "GPTNeoXForCausalLM": GPT_NEOX,
    **dict.fromkeys(["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"], LLAMA),
}
ENDS = {
    **dict.fromkeys(EXPECTED, ("wte", "lm_head")),
    **dict.fromkeys(OTHERS, ("model.embed_tokens", "lm_head")),
    "GPT2LMHeadModel": ("transformer.wte", "lm_head"),
    "GPTNeoXForCausalLM": ("gpt_neox.embed_in", "lm_head"),
}
ROWS = [(a, path, address) for a, rows in (EXPECTED | OTHERS).items() for path, address in rows.items()]


@pytest.mark.parametrize("block", [0, 7, 10, 123])
@pytest.mark.parametrize(("architecture", "path", "address"), ROWS)
def test_matrix_of_a_block_has_the_address_of_the_specification(architecture: str, path: str, address: str, block: int):
    assert path_table(architecture).address(path.format(block)) == address.format(block)


@pytest.mark.parametrize(("architecture", "paths"), ENDS.items())
def test_embedding_and_unembedding_have_addresses(architecture: str, paths: tuple[str, str]):
    table = path_table(architecture)
    assert [table.address(path) for path in paths] == ["embed", "output"]
    assert (table.path("embed"), table.path("output")) == paths


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
    message = (
        "^unknown target model class 'Llama': no table says .*; known are LlamaSimpleMLP, LlamaSimple, GPT2Simple, "
    )
    with pytest.raises(UnsupportedModelError, match=message):
        path_table("Llama")


def test_every_architecture_has_a_table_of_its_own_name():
    assert {name: table.architecture for name, table in PATH_TABLES.items()} == {a: a for a in EXPECTED | OTHERS}


@pytest.mark.parametrize("architecture", PATH_TABLES)
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


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"mlp.up": "h.0.up"}, r"the path of mlp\.up must have \{block\} once, .* found 'h\.0\.up'"),
        ({"mlp.up": "h.{block}.{block}"}, r"the path of mlp\.up must have \{block\} once"),
        ({"mlp.up": "h.{block}.x", "mlp.down": "h.{block}.x"}, r"mlp\.up and mlp\.down must be two modules, found"),
        ({"mlp.middle": "h.{block}.middle"}, r"'mlp\.middle' is no matrix of a block; these are attn\.q, "),
    ],
)
def test_tables_that_cannot_be_read_are_refused(blocks: dict[str, str], message: str):
    with pytest.raises(UnsupportedModelError, match=message):
        PathTable("Some", "wte", "lm_head", blocks)
