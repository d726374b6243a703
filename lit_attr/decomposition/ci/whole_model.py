"""Causal-importance functions over all matrices of a model at once.

Inputs and outputs are named by the matrices' paths, as in `layerwise`. Formulas and parameter names are those of
goodfire-ai/spd.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lit_attr.decomposition.ci.layers import BidirectionalAttention, Linear, RMSNorm, mlp, rms_normalise
from lit_attr.decomposition.ci.layerwise import Inputs, PreSigmoid, dashed
from lit_attr.decomposition.components import LinearComponents

# Of inputs side by side, and of outputs, unless those of a single matrix are more: 1 GiB and 256 MiB in float32.
_INPUTS_AT_ONCE, _OUTPUTS_AT_ONCE = 1 << 28, 1 << 26


@dataclass(frozen=True)
class AttentionOptions:
    """Attention inside a causal-importance function.

    Attributes:
        n_heads: Number of heads.
        max_len: Longest row.
        rope_base: Base of the rotary frequencies.
    """

    n_heads: int
    max_len: int = 2048
    rope_base: float = 10000.0


class GlobalCI(nn.Module):
    """A causal-importance function of all matrices' inputs at once.

    Args:
        function: Function from inputs by path to pre-sigmoid values by path, matrix by matrix.
    """

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self._global_ci_fn = function

    def forward(self, inputs: Inputs) -> PreSigmoid:
        """Pre-sigmoid causal importance, matrix by matrix."""
        return self._global_ci_fn(inputs)


def _as_it_is(x: Float[Tensor, "batch seq _"]) -> Float[Tensor, "batch seq _"]:
    return x


@dataclass(frozen=True)
class Group:
    """Matrices whose inputs are concatenated, in this order.

    Attributes:
        paths: Paths of the matrices.
        widths: Input width of each.
        n_components: Number of components of each.
    """

    paths: Sequence[str]
    widths: Sequence[int]
    n_components: Sequence[int]

    @classmethod
    def of(cls, components: Mapping[str, LinearComponents], paths: Sequence[str]) -> "Group":
        """The group of the given matrices."""
        chosen = [components[path] for path in paths]
        return cls(tuple(paths), [c.V.shape[0] for c in chosen], [c.n_components for c in chosen])

    def read_in(
        self,
        layers: nn.Module,
        inputs: Inputs,
        prepare: Callable[[Float[Tensor, "batch seq _"]], Float[Tensor, "batch seq _"]] = _as_it_is,
    ) -> Float[Tensor, "batch seq width"]:
        """The inputs of all matrices side by side, through first layers.

        Args:
            layers: The layers, which do not mix positions.
            inputs: Path of each matrix to its input.
            prepare: What is done to each input before.
        """
        chosen = [inputs[path] for path in self.paths]
        n_rows, seq_len = chosen[0].shape[:2]
        at_once = max(_INPUTS_AT_ONCE // (n_rows * sum(self.widths)), 1)
        pieces = [slice(first, first + at_once) for first in range(0, seq_len, at_once)]
        outputs = [layers(torch.cat([prepare(x[:, piece]) for x in chosen], dim=-1)) for piece in pieces]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)

    def read_out(self, head: Linear, x: Float[Tensor, "batch seq _"]) -> PreSigmoid:
        """The outputs of a last layer, which stand side by side, given back to their matrices.

        Args:
            head: The last layer.
            x: What it reads.
        """
        at_once = max(_OUTPUTS_AT_ONCE // x[..., 0].numel(), 1)
        first = column = 0
        while first < len(self.paths):
            stop, end = first + 1, column + self.n_components[first]
            while stop < len(self.paths) and end + self.n_components[stop] - column <= at_once:
                end += self.n_components[stop]
                stop += 1
            pieces = head.some(x, slice(column, end)).split(list(self.n_components[first:stop]), -1)
            yield from zip(self.paths[first:stop], pieces, strict=True)
            del pieces
            first, column = stop, end


class GlobalSharedMLP(nn.Module):
    """`global_shared_mlp`: one MLP over all inputs.

    Args:
        group: All matrices, in sorted order of their paths.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, group: Group, hidden: Sequence[int]) -> None:
        super().__init__()
        self.group = group
        self.layers = mlp([sum(group.widths), *hidden, sum(group.n_components)])

    def forward(self, inputs: Inputs) -> PreSigmoid:
        """Pre-sigmoid causal importance, matrix by matrix."""
        *hidden, head = self.layers
        x = self.group.read_in(nn.Sequential(*hidden), inputs)
        yield from self.group.read_out(cast(Linear, head), x)


class _TransformerBlock(nn.Module):
    def __init__(self, width: int, hidden: Sequence[int], attention: AttentionOptions) -> None:
        super().__init__()
        self.attn = BidirectionalAttention(width, attention.n_heads, attention.max_len, attention.rope_base)
        self.mlp = mlp([width, *hidden, width])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(rms_normalise(x))
        return x + self.mlp(rms_normalise(x))


class GlobalSharedTransformer(nn.Module):
    """`global_shared_transformer`: a bidirectional transformer over all inputs, each normalised by itself.

    Args:
        group: All matrices, in sorted order of their paths.
        d_model: Width of the transformer's own residual stream.
        n_blocks: Number of its blocks.
        hidden: Hidden widths of each block's MLP.
        attention: Options of each block's attention.
    """

    def __init__(
        self, group: Group, d_model: int, n_blocks: int, hidden: Sequence[int], attention: AttentionOptions
    ) -> None:
        super().__init__()
        self.group = group
        self._input_projector = Linear(sum(group.widths), d_model)
        self._blocks = nn.ModuleList(_TransformerBlock(d_model, hidden, attention) for _ in range(n_blocks))
        self._output_head = Linear(d_model, sum(group.n_components))

    def forward(self, inputs: Inputs) -> PreSigmoid:
        """Pre-sigmoid causal importance, matrix by matrix."""
        x = self.group.read_in(self._input_projector, inputs, rms_normalise)
        for block in self._blocks:
            x = block(x)
        yield from self.group.read_out(self._output_head, x)


class GlobalReverseResidual(nn.Module):
    """`global_reverse_residual`: a residual stream that visits groups of matrices, usually the last block first.

    Args:
        groups: Name of each group to its matrices, in the order of the visit; a group's matrices in module order.
        width: Width of the residual stream.
        reader_hidden: Hidden widths of each group's reader.
        transition_hidden: Hidden width of the transitions between groups; None for a single linear map.
        attention: Options of the attention between groups; None for transitions without attention.
    """

    def __init__(
        self,
        groups: Mapping[str, Group],
        width: int,
        reader_hidden: Sequence[int],
        transition_hidden: int | None,
        attention: AttentionOptions | None,
    ) -> None:
        super().__init__()
        self.groups = {dashed(name): group for name, group in groups.items()}
        names = list(self.groups)
        between = names[:-1]
        self._inp_projectors = nn.ModuleDict({n: Linear(sum(g.widths), width) for n, g in self.groups.items()})
        self._readers = nn.ModuleDict(
            {n: mlp([width, *reader_hidden, sum(g.n_components)]) for n, g in self.groups.items()}
        )
        self._reader_norms = nn.ModuleDict({n: RMSNorm(width) for n in names})
        self._transitions = nn.ModuleDict(
            {
                n: Linear(width, width) if transition_hidden is None else mlp([width, transition_hidden, width])
                for n in between
            }
        )
        self._transition_norms = nn.ModuleDict({n: RMSNorm(width) for n in between})
        attending = between if attention else []
        self._attn_transitions = nn.ModuleDict(
            {
                n: BidirectionalAttention(width, attention.n_heads, attention.max_len, attention.rope_base)
                for n in attending
                if attention
            }
        )
        self._attn_norms = nn.ModuleDict({n: RMSNorm(width) for n in attending})

    def forward(self, inputs: Inputs) -> PreSigmoid:
        """Pre-sigmoid causal importance, matrix by matrix."""
        residual: Tensor | float = 0.0
        for name, group in self.groups.items():
            residual = residual + group.read_in(self._inp_projectors[name], inputs)
            if name in self._attn_transitions:
                residual = residual + self._attn_transitions[name](self._attn_norms[name](residual))
            if name in self._transitions:
                residual = residual + self._transitions[name](self._transition_norms[name](residual))
            *hidden, head = cast(nn.Sequential, self._readers[name])
            x = nn.Sequential(*hidden)(self._reader_norms[name](residual))
            yield from group.read_out(cast(Linear, head), x)
