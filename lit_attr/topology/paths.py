"""Path tables: where each model class keeps the matrices that canonical addresses stand for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lit_attr.errors import UnsupportedModelError, shown
from lit_attr.topology.address import EMBED, MATRICES, OUTPUT, block_address

_BLOCK_INDEX = "{block}"


@dataclass(frozen=True)
class PathTable:
    """The module paths of one architecture.

    Attributes:
        architecture: Name of the model class, for messages.
        embed: Path of the token embedding.
        output: Path of the unembedding.
        blocks: Matrix name, one of `MATRICES`, to its path, with `{block}` where the block index stands.

    Raises:
        UnsupportedModelError: If a matrix is unknown, a path has no place for the block index, or two paths are equal.
    """

    architecture: str
    embed: str
    output: str
    blocks: Mapping[str, str]
    _patterns: Mapping[str, re.Pattern[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for matrix, path in self.blocks.items():
            if matrix not in MATRICES:
                raise UnsupportedModelError(
                    f"the path table of {self.architecture}: {matrix!r} is no matrix of a block; these are "
                    f"{', '.join(MATRICES)}"
                )
            if path.count(_BLOCK_INDEX) != 1:
                raise UnsupportedModelError(
                    f"the path table of {self.architecture}: the path of {matrix} must have {_BLOCK_INDEX} once, where "
                    f"the block index stands, found {path!r}"
                )
        paths = [("embed", self.embed), ("output", self.output), *self.blocks.items()]
        for number, (name, path) in enumerate(paths):
            if same := [other for other, its in paths[:number] if its == path]:
                raise UnsupportedModelError(
                    f"the path table of {self.architecture}: {same[0]} and {name} must be two modules, "
                    f"found {path!r} twice"
                )
        patterns = {
            matrix: re.compile(re.escape(path).replace(re.escape(_BLOCK_INDEX), r"(\d+)"))
            for matrix, path in self.blocks.items()
        }
        object.__setattr__(self, "_patterns", patterns)

    def address(self, path: str) -> str:
        """The canonical address of a module.

        Args:
            path: Dotted path of the module in the model, such as `h.0.attn.q_proj`.

        Raises:
            UnsupportedModelError: If the path has no address in this architecture.
        """
        if path == self.embed:
            return EMBED
        if path == self.output:
            return OUTPUT
        for matrix, pattern in self._patterns.items():
            if match := pattern.fullmatch(path):
                return block_address(int(match[1]), matrix)
        known = ", ".join([self.embed, *self.blocks.values(), self.output])
        raise UnsupportedModelError(
            f"module {path!r} of {self.architecture} has no canonical address; addressable are: {known}"
        )

    def path(self, layer: str) -> str:
        """The module path of a layer.

        Args:
            layer: Canonical address; the architecture must have it.
        """
        if layer in (EMBED, OUTPUT):
            return self.embed if layer == EMBED else self.output
        block, _, matrix = layer.partition(".")
        return self.blocks[matrix].replace(_BLOCK_INDEX, block)


def _blocks(prefix: str, matrices: Mapping[str, str]) -> dict[str, str]:
    return {matrix: f"{prefix}.{_BLOCK_INDEX}.{path}" for matrix, path in matrices.items()}


_ATTENTION = {f"attn.{name}": f"attn.{name}_proj" for name in "qkvo"}
_SELF_ATTENTION = {f"attn.{name}": f"self_attn.{name}_proj" for name in "qkvo"}
_MLP = {"mlp.up": "mlp.c_fc", "mlp.down": "mlp.down_proj"}
_GLU = {f"glu.{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")}
_GPT2 = {
    **{"attn_fused.qkv": "attn.c_attn", "attn_fused.o": "attn.c_proj"},
    **{"mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"},
}
_GPT_NEOX = {
    **{"attn_fused.qkv": "attention.query_key_value", "attn_fused.o": "attention.dense"},
    **{"mlp.up": "mlp.dense_h_to_4h", "mlp.down": "mlp.dense_4h_to_h"},
}

PATH_TABLES: dict[str, PathTable] = {
    table.architecture: table
    for table in (
        PathTable("LlamaSimpleMLP", embed="wte", output="lm_head", blocks=_blocks("h", _ATTENTION | _MLP)),
        PathTable("LlamaSimple", embed="wte", output="lm_head", blocks=_blocks("h", _ATTENTION | _GLU)),
        PathTable("GPT2Simple", embed="wte", output="lm_head", blocks=_blocks("h", _ATTENTION | _MLP)),
        PathTable("GPT2LMHeadModel", embed="transformer.wte", output="lm_head", blocks=_blocks("transformer.h", _GPT2)),
        *(
            PathTable(
                architecture,
                embed="model.embed_tokens",
                output="lm_head",
                blocks=_blocks("model.layers", _SELF_ATTENTION | _GLU),
            )
            for architecture in ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
        ),
        PathTable(
            "GPTNeoXForCausalLM",
            embed="gpt_neox.embed_in",
            output="lm_head",
            blocks=_blocks("gpt_neox.layers", _GPT_NEOX),
        ),
    )
}


def path_table(architecture: str) -> PathTable:
    """The path table of a model class.

    Raises:
        UnsupportedModelError: If the class is not known.
    """
    try:
        return PATH_TABLES[architecture]
    except KeyError:
        raise UnsupportedModelError(
            f"unknown target model class {shown(architecture)}: no table says where its embedding, matrices and "
            f"unembedding are; known are {', '.join(PATH_TABLES)}; for others give one by model.path_table"
        ) from None
