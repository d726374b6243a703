"""Training a decomposition: components that sum to the target's matrices, few of which matter at any position."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lit_attr.decomposition.ci.build import build_ci
from lit_attr.decomposition.components import LinearComponents
from lit_attr.decomposition.matrix import forward_with_inputs
from tools.demo.masked import MaskedTarget, lower_leaky
from tools.demo.objective import faithfulness_error, importance_penalty, kl_to
from tools.demo.target import cosine

_FAITHFULNESS_LEARNING_RATE = 3e-3


@dataclass(frozen=True)
class DecompositionTraining:
    """How a decomposition is trained.

    Attributes:
        steps: Number of optimisation steps.
        batch_size: Number of stories in a step.
        learning_rate: Greatest learning rate; it rises over the first steps and falls to zero as a cosine.
        faithfulness_steps: Number of steps before the others, on the faithfulness alone.
        faithfulness: Coefficient of the mean squared error of the matrices.
        importance: Greatest coefficient of the penalty on causal importances.
        anneal_end: Part of the steps over which that coefficient grows linearly from zero, and the exponent falls.
        exponent_start: Exponent of the penalty at the first step.
        exponent_end: Exponent of the penalty from `anneal_end` on.
    """

    steps: int = 1200
    batch_size: int = 32
    learning_rate: float = 2e-3
    faithfulness_steps: int = 400
    faithfulness: float = 6e4
    importance: float = 4e-2
    anneal_end: float = 0.6
    exponent_start: float = 1.0
    exponent_end: float = 0.5


def decompose(
    target: nn.Module,
    counts: Mapping[str, int],
    ci_options: Mapping[str, Any],
    tokens: Int[Tensor, "story seq"],
    training: DecompositionTraining,
    seed: int,
) -> tuple[dict[str, LinearComponents], nn.Module]:
    """Train components and a causal-importance function.

    Each step reconstructs the target's distribution twice: with the masks `ci + (1 - ci) * u`, u uniform in [0, 1) for
    every component and position, and with the masks `ci`.

    Args:
        target: The model, frozen.
        counts: Path of each matrix to its number of components.
        ci_options: A run's `ci_config`.
        tokens: Stories.
        training: How to train.
        seed: Seed of initial weights, batches and masks.

    Returns:
        Path of each matrix to its components, and the causal-importance function.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        components = {path: _initial(target.get_submodule(path), count) for path, count in counts.items()}
        ci_fn = build_ci(ci_options, components)
        _make_faithful_(target, components, training.faithfulness_steps)
        _train_(target, components, ci_fn, tokens, training)
    return components, ci_fn


def _initial(matrix: nn.Module, count: int) -> LinearComponents:
    if not isinstance(matrix, nn.Linear):
        raise TypeError(f"only nn.Linear is decomposed, found {type(matrix).__name__}")
    components = LinearComponents(matrix.in_features, matrix.out_features, count, bias=matrix.bias is not None)
    nn.init.normal_(components.V, std=matrix.in_features**-0.5)
    nn.init.normal_(components.U, std=count**-0.5)
    if components.bias is not None:
        components.bias.copy_(matrix.bias)
    return components


def _make_faithful_(target: nn.Module, components: Mapping[str, LinearComponents], steps: int) -> None:
    optimiser = torch.optim.Adam(_parameters(components), _FAITHFULNESS_LEARNING_RATE)
    for _ in range(steps):
        optimiser.zero_grad()
        faithfulness_error(target, components).backward()
        optimiser.step()


def _train_(
    target: nn.Module,
    components: Mapping[str, LinearComponents],
    ci_fn: nn.Module,
    tokens: Int[Tensor, "story seq"],
    training: DecompositionTraining,
) -> None:
    masked = MaskedTarget(target, components)
    optimiser = torch.optim.Adam([*_parameters(components), *ci_fn.parameters()], training.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(cosine, steps=training.steps))
    for step in range(training.steps):
        batch = tokens[torch.randint(len(tokens), (training.batch_size,))]
        with torch.no_grad():
            reference, inputs = forward_with_inputs(target, components, batch)
        pre_sigmoid = dict(ci_fn(inputs))
        ci = {path: lower_leaky(x) for path, x in pre_sigmoid.items()}
        stochastic = {path: values + (1 - values) * torch.rand_like(values) for path, values in ci.items()}
        annealed = min(1.0, step / (training.anneal_end * training.steps))
        exponent = training.exponent_start + annealed * (training.exponent_end - training.exponent_start)
        loss = (
            kl_to(reference, masked(batch, stochastic))
            + kl_to(reference, masked(batch, ci))
            + training.faithfulness * faithfulness_error(target, components)
            + annealed * training.importance * importance_penalty(pre_sigmoid, exponent)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def _parameters(components: Mapping[str, LinearComponents]) -> list[nn.Parameter]:
    return [parameter for part in components.values() for parameter in part.parameters()]
