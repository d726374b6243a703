"""The direct paths of one sequence as linear maps, whatever lies on them."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_attr.decomposition.model import DecomposedModel
from lit_attr.topology.address import EMBED, OUTPUT


class DirectPaths:
    """A forward of one sequence in which every decomposed matrix puts out what it is told, and its linearisation.

    Args:
        model: Whose paths they are.
        tokens: Of the sequence.
        outputs: Layer to output of each decomposed matrix, and `embed` to the token embeddings.
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


class JacobianProduct:
    """How the inputs of some matrices answer to movements of one output, to first order.

    The gradient is linear in the direction that it is taken along, and its transpose is what is asked for: the gradient
    of a gradient, for many movements in one pass. The transposed operations are those of the backward pass, so that
    models need no rules for forward differentiation, and whatever does not depend on the movement is computed once.

    Args:
        paths: Of the sequence.
        source: Layer whose output moves, or `embed`.
        targets: Layers whose inputs answer.
    """

    def __init__(self, paths: DirectPaths, source: str, targets: Sequence[str]) -> None:
        # Matrices behind one norm share their input.
        inputs = {id(paths.inputs[target]): paths.inputs[target] for target in targets}
        self._place = {target: list(inputs).index(id(paths.inputs[target])) for target in targets}
        self._along = [torch.zeros_like(x, requires_grad=True) for x in inputs.values()]
        (self._gradient,) = torch.autograd.grad(
            list(inputs.values()), paths.outputs[source], self._along, create_graph=True
        )

    def __call__(self, movements: Float[Tensor, "movement seq d_out"]) -> dict[str, Float[Tensor, "movement seq _"]]:
        """Target to what its input does."""
        answers = torch.autograd.grad(
            self._gradient, self._along, movements[:, None], retain_graph=True, is_grads_batched=True
        )
        return {target: answers[place][:, 0] for target, place in self._place.items()}
