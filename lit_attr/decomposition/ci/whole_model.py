"""Causal-importance functions over all matrices of a model at once.

Inputs and outputs are keyed by the matrices' paths, as in `layerwise`. Formulas and parameter names are those of
goodfire-ai/spd.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lit_attr.decomposition.ci.layers import BidirectionalAttention, Linear, RMSNorm, mlp, rms_normalise
from lit_attr.decomposition.ci.layerwise import Inputs, PreSigmoid, dashed
from lit_attr.decomposition.components import LinearComponents


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
        function: Function from inputs by path to pre-sigmoid values by path.
    """

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self._global_ci_fn = function

    def forward(self, inputs: Inputs) -> PreSigmoid:
        """Pre-sigmoid causal importance of every matrix."""
        return self._global_ci_fn(inputs)


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

    def concatenate(self, inputs: Inputs) -> Float[Tensor, "batch seq _"]:
        """The inputs of all matrices side by side."""
        return torch.cat([inputs[path] for path in self.paths], dim=-1)

    def split(self, values: Float[Tensor, "batch seq _"]) -> PreSigmoid:
        """Values that stand side by side, given back to their matrices."""
        return dict(zip(self.paths, values.split(list(self.n_components), dim=-1), strict=True))


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
        """Pre-sigmoid causal importance of every matrix."""
        return self.group.split(self.layers(self.group.concatenate(inputs)))


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
        """Pre-sigmoid causal importance of every matrix."""
        x = self._input_projector(self.group.concatenate({path: rms_normalise(x) for path, x in inputs.items()}))
        for block in self._blocks:
            x = block(x)
        return self.group.split(self._output_head(x))


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
        """Pre-sigmoid causal importance of every matrix."""
        values: PreSigmoid = {}
        residual: Tensor | float = 0.0
        for name, group in self.groups.items():
            residual = residual + self._inp_projectors[name](group.concatenate(inputs))
            if name in self._attn_transitions:
                residual = residual + self._attn_transitions[name](self._attn_norms[name](residual))
            if name in self._transitions:
                residual = residual + self._transitions[name](self._transition_norms[name](residual))
            values |= group.split(self._readers[name](self._reader_norms[name](residual)))
        return values
