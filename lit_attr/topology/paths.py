"""Where each architecture keeps the matrices that canonical addresses stand for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lit_attr.errors import UnsupportedModelError
from lit_attr.topology.address import EMBED, OUTPUT, block_address

_BLOCK_INDEX = "{block}"


@dataclass(frozen=True)
class PathTable:
    """The module paths of one architecture.

    Attributes:
        architecture: Name of the model class, for messages.
        embed: Path of the token embedding.
        output: Path of the unembedding.
        blocks: Matrix name (such as `attn.q`) to its path, with `{block}` where the block index stands.
    """

    architecture: str
    embed: str
    output: str
    blocks: Mapping[str, str]
    _patterns: Mapping[str, re.Pattern[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
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
            layer: Canonical address that the architecture has.
        """
        if layer in (EMBED, OUTPUT):
            return self.embed if layer == EMBED else self.output
        block, _, matrix = layer.partition(".")
        return self.blocks[matrix].replace(_BLOCK_INDEX, block)


_ATTENTION = {f"attn.{name}": f"h.{_BLOCK_INDEX}.attn.{name}_proj" for name in "qkvo"}
_MLP = {"mlp.up": f"h.{_BLOCK_INDEX}.mlp.c_fc", "mlp.down": f"h.{_BLOCK_INDEX}.mlp.down_proj"}
_GLU = {f"glu.{name}": f"h.{_BLOCK_INDEX}.mlp.{name}_proj" for name in ("gate", "up", "down")}

PATH_TABLES: dict[str, PathTable] = {
    table.architecture: table
    for table in (
        PathTable("LlamaSimpleMLP", embed="wte", output="lm_head", blocks=_ATTENTION | _MLP),
        PathTable("LlamaSimple", embed="wte", output="lm_head", blocks=_ATTENTION | _GLU),
        PathTable("GPT2Simple", embed="wte", output="lm_head", blocks=_ATTENTION | _MLP),
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
            f"unknown target model class {architecture!r}; known are: {', '.join(PATH_TABLES)}"
        ) from None
