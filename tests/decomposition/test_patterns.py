import re

import pytest

from lit_attr.decomposition.patterns import expand_patterns
from lit_attr.decomposition.targets import build_target
from lit_attr.errors import RunFormatError, UnsupportedModelError
from tests.toys import MODEL_OPTIONS, toy_model

FUSED = {"use_grouped_query_attention": False}
ENDS = "attributions start at the undecomposed embedding ('wte') and end at the undecomposed unembedding ('lm_head')"


def expand(architecture: str, *patterns: tuple[str, int]) -> list[tuple[str, int]]:
    return list(expand_patterns(patterns, build_target(architecture, MODEL_OPTIONS[architecture])).items())


@pytest.mark.parametrize(
    ("architecture", "patterns", "expected"),
    [
        (
            "LlamaSimpleMLP",
            [("h.*.mlp.c_fc", 3), ("h.*.attn.q_proj", 4)],
            [("h.0.mlp.c_fc", 3), ("h.1.mlp.c_fc", 3), ("h.0.attn.q_proj", 4), ("h.1.attn.q_proj", 4)],
        ),
        ("LlamaSimpleMLP", [("h.0.attn.*", 2)], [(f"h.0.attn.{n}_proj", 2) for n in "qkvo"]),
        ("LlamaSimple", [("h.1.mlp.*", 2)], [(f"h.1.mlp.{n}_proj", 2) for n in ("gate", "up", "down")]),
        (
            "LlamaSimple",
            [("h.1*_proj", 2)],
            [
                (f"h.1.{m}_proj", 2)
                for m in (*(f"attn.{n}" for n in "qkvo"), *(f"mlp.{n}" for n in ("gate", "up", "down")))
            ],
        ),
        ("GPT2Simple", [("h.?.mlp.*_*", 2)], [(f"h.{b}.mlp.{n}", 2) for b in (0, 1) for n in ("c_fc", "down_proj")]),
        ("GPT2Simple", [("h.[!0].attn.[qk]_proj", 2)], [("h.1.attn.q_proj", 2), ("h.1.attn.k_proj", 2)]),
        ("GPT2Simple", [("h.1.mlp.c_fc", 2), ("h.0.mlp.c_fc", 3)], [("h.1.mlp.c_fc", 2), ("h.0.mlp.c_fc", 3)]),
    ],
)
def test_patterns_expand_in_module_order(
    architecture: str, patterns: list[tuple[str, int]], expected: list[tuple[str, int]]
):
    assert expand(architecture, *patterns) == expected


@pytest.mark.parametrize("pattern", ["h.*.mlp.gate_proj", "H.0.mlp.c_fc", "mlp.c_fc", "h.7.attn.*"])
def test_pattern_that_matches_nothing_is_refused(pattern: str):
    message = f"module_info: pattern {pattern!r} matches no module of LlamaSimpleMLP"
    with pytest.raises(RunFormatError, match=f"^{re.escape(message)}$"):
        expand("LlamaSimpleMLP", ("h.*.mlp.c_fc", 3), (pattern, 3))


@pytest.mark.parametrize("count", [3, 4])
def test_matrix_that_is_matched_twice_is_refused_whatever_the_counts(count: int):
    message = "module_info: 'h.1.mlp.c_fc' is matched twice, the second time by 'h.1.mlp.c*'"
    with pytest.raises(RunFormatError, match=f"^{re.escape(message)}$"):
        expand("LlamaSimpleMLP", ("h.*.mlp.c_fc", 3), ("h.1.mlp.c*", count))


@pytest.mark.parametrize(
    ("architecture", "pattern", "path", "kind"),
    [
        ("LlamaSimpleMLP", "h.*.mlp.*", "h.0.mlp.gelu", "GELU"),
        ("LlamaSimpleMLP", "h.*.rms_1", "h.0.rms_1", "RMSNorm"),
        ("GPT2Simple", "h.1.ln_2", "h.1.ln_2", "LayerNorm"),
        ("GPT2Simple", "h.*.attn", "h.0.attn", "CausalSelfAttention"),
        ("GPT2Simple", "*", "", "GPT2Simple"),
    ],
)
def test_match_that_is_no_matrix_is_refused(architecture: str, pattern: str, path: str, kind: str):
    message = f"module_info: pattern {pattern!r} matches {path!r}, not a matrix: {kind}"
    with pytest.raises(RunFormatError, match=f"^{re.escape(message)}$"):
        expand(architecture, (pattern, 3))


@pytest.mark.parametrize("path", ["wte", "lm_head"])
@pytest.mark.parametrize("architecture", MODEL_OPTIONS)
def test_decomposed_end_of_the_graph_is_refused(architecture: str, path: str):
    modules = [{"module_pattern": "h.0.mlp.down_proj", "C": 3}, {"module_pattern": path, "C": 3}]
    with pytest.raises(UnsupportedModelError) as caught:
        toy_model(architecture, module_info=modules)
    assert str(caught.value) == f"the run decomposes {path!r}: {ENDS}"


def test_decomposed_position_embedding_is_refused():
    with pytest.raises(
        UnsupportedModelError, match=r"^module 'wpe' of GPT2Simple has no canonical address; addressable"
    ):
        toy_model("GPT2Simple", module_info=[{"module_pattern": "wpe", "C": 3}])


@pytest.mark.parametrize("architecture", ["LlamaSimpleMLP", "LlamaSimple"])
def test_decomposed_fused_attention_matrix_has_no_address(architecture: str):
    message = re.escape(f"module 'h.0.attn.c_attn' of {architecture} has no canonical address; addressable are: wte, ")
    with pytest.raises(UnsupportedModelError, match=f"^{message}"):
        toy_model(architecture, model_options=FUSED, module_info=[{"module_pattern": "h.*.attn.c_attn", "C": 3}])
