"""Jacobian-vector products along the direct paths of one sequence, whatever lies on them."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_attr.decomposition.model import DecomposedModel
from lit_attr.topology.address import EMBED, OUTPUT


class DirectPaths:
    """The graph of a forward of one sequence in which every decomposed matrix puts out a given value.

    Args:
        model: Decomposed model.
        tokens: Token ids.
        outputs: Layer to output of each decomposed matrix, and `embed` to the token embeddings.

    Attributes:
        outputs: Layer to the given output: the leaves of the graph.
        inputs: Layer to the input of each decomposed matrix, and `output` to what the unembedding reads.
    """

    def __init__(
        self,
        model: DecomposedModel,
        tokens: Int[Tensor, " seq"],
        outputs: Mapping[str, Float[Tensor, "seq _"]],
    ) -> None:
        self.outputs = {layer: output.detach()[None].requires_grad_() for layer, output in outputs.items()}
        self.inputs: dict[str, Tensor] = {}

        def cut(layer: str, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            self.inputs[layer] = args[0]
            return self.outputs[layer].clone()  # some models change it in place

        def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self.inputs[OUTPUT] = args[0]

        def module(layer: str) -> nn.Module:
            return model.target_model.get_submodule(model.table.path(layer))

        handles = [module(layer).register_forward_hook(partial(cut, layer)) for layer in (EMBED, *model.paths)]
        handles.append(module(OUTPUT).register_forward_pre_hook(record))
        try:
            with torch.enable_grad():
                model.target_model(tokens[None])
        finally:
            for handle in handles:
                handle.remove()


class JVP:
    """Jacobian-vector products from the output of one layer to the inputs of others.

    The gradient of the inputs along a cotangent is linear in the cotangent, and its transpose is the product that is
    asked for: the gradient of a gradient, for many tangents in one pass. The transposed operations are those of the
    backward pass, so that models need no rules for forward differentiation, and whatever does not depend on the tangent
    is computed once.

    Args:
        paths: Direct paths of the sequence.
        source: Layer whose output is the point of departure, or `embed`.
        targets: Layers whose inputs are reached, one for each input.
    """

    def __init__(self, paths: DirectPaths, source: str, targets: Sequence[str]) -> None:
        self._targets = targets
        inputs = [paths.inputs[target] for target in targets]
        self._cotangents = [torch.zeros_like(x, requires_grad=True) for x in inputs]
        (self._gradient,) = torch.autograd.grad(inputs, paths.outputs[source], self._cotangents, create_graph=True)

    def __call__(self, tangents: Float[Tensor, "tangent seq d_out"]) -> dict[str, Float[Tensor, "tangent seq _"]]:
        """Push tangents of the output forward.

        Args:
            tangents: Directions in which the output moves.

        Returns:
            Target to the tangents of its input.
        """
        products = torch.autograd.grad(
            self._gradient, self._cotangents, tangents[:, None], retain_graph=True, is_grads_batched=True
        )
        return {target: product[:, 0] for target, product in zip(self._targets, products, strict=True)}
