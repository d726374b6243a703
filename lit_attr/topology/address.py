"""Canonical addresses of the attribution graph's layers, and keys of single components in them.

A *layer* is `embed`, `output`, or one decomposed matrix of one block, such as `0.attn.q` or `3.mlp.down`.
A *key* is `<layer>:<index>`, split at the last colon; for `embed` and `output` the index is a token id.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lit_attr.errors import KeyFormatError

EMBED = "embed"
OUTPUT = "output"

# The matrices of one block that have an address; matrices that fuse q, k and v have names of their own.
MATRICES = (
    *("attn.q", "attn.k", "attn.v", "attn.o"),
    *("attn_fused.qkv", "attn_fused.o"),
    *("glu.gate", "glu.up", "glu.down"),
    *("mlp.up", "mlp.down"),
)

_INDEX = re.compile(r"\d{1,18}", re.ASCII)  # no more than an int64 holds


def block_address(block: int, matrix: str) -> str:
    """The address of one matrix of one block.

    Args:
        block: Index of the block, from 0.
        matrix: One of `MATRICES`.

    Example:
        >>> block_address(0, "attn.q")
        '0.attn.q'
    """
    return f"{block}.{matrix}"


def in_order(layers: Iterable[str]) -> tuple[str, ...]:
    """Layers in the order in which a forward pass meets them: the embedding, block by block, the output."""

    def place(layer: str) -> tuple[int, int, int]:
        if layer in (EMBED, OUTPUT):
            return (1 if layer == OUTPUT else -1, 0, 0)
        block, _, matrix = layer.partition(".")
        return (0, int(block) if block.isdecimal() else 0, MATRICES.index(matrix) if matrix in MATRICES else -1)

    return tuple(sorted(layers, key=place))


@dataclass(frozen=True, slots=True)
class ComponentKey:
    """One component, or one token of `embed` or `output`.

    Attributes:
        layer: Canonical address.
        index: Component index in the layer, or token id; from 0.
    """

    layer: str
    index: int

    @classmethod
    def parse(cls, key: str) -> "ComponentKey":
        """Read a key such as `0.mlp.up:5`.

        Raises:
            KeyFormatError: If the key has no colon, no layer, or an index that is not a non-negative decimal.

        Example:
            >>> ComponentKey.parse("0.mlp.up:5")
            ComponentKey(layer='0.mlp.up', index=5)
        """
        layer, colon, index = key.rpartition(":") if isinstance(key, str) else ("", "", "")
        if not colon or not layer.strip() or not _INDEX.fullmatch(index):
            raise KeyFormatError(
                f"malformed component key {key!r}: expected '<layer>:<index>', "
                "such as '0.mlp.up:5', 'embed:17' or 'output:17'"
            )
        return cls(layer, int(index))

    def __str__(self) -> str:
        return f"{self.layer}:{self.index}"
