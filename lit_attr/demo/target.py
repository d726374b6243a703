"""Training the target model of the demo."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from lit_attr.decomposition.targets.gpt2_simple import GPT2Simple, GPT2SimpleConfig


@dataclass(frozen=True)
class TargetTraining:
    """How the target is trained.

    Attributes:
        steps: Optimisation steps.
        batch_size: Stories in a step.
        learning_rate: At its height; it rises over the first steps and falls to zero as a cosine.
        weight_decay: Keeps the matrices near low rank, so that they decompose into few components.
        seed: Of initial weights and batches.
    """

    steps: int = 2500
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    seed: int = 0


def train_target(config: GPT2SimpleConfig, tokens: Int[Tensor, "story seq"], training: TargetTraining) -> GPT2Simple:
    """Train a model to predict each next word.

    Args:
        config: Shape of the model.
        tokens: Stories.
        training: How.

    Returns:
        The model, frozen.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = GPT2Simple(config)
        nn.init.normal_(model.wte.weight, std=config.n_embd**-0.5)
        nn.init.normal_(model.wpe.weight, std=0.1 * config.n_embd**-0.5)
        optimiser = torch.optim.AdamW(
            model.parameters(), training.learning_rate, betas=(0.9, 0.95), weight_decay=training.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: cosine(step, training.steps))
        for _ in range(training.steps):
            batch = tokens[torch.randint(len(tokens), (training.batch_size,))]
            loss = next_word_loss(model, batch)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return model.eval().requires_grad_(False)


def next_word_loss(model: nn.Module, tokens: Int[Tensor, "batch seq"]) -> Tensor:
    """Mean cross-entropy of each word but the first, in nats."""
    logits = model(tokens)[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def cosine(step: int, steps: int, warmup: float = 0.03) -> float:
    """Part of the full learning rate: a linear rise over the first part of the steps, then a cosine to zero."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
