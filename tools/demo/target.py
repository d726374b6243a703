"""Training the target model of the demo."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from lit_attr.decomposition.targets.gpt2_simple import GPT2Simple, GPT2SimpleConfig

_POSITION_SPREAD = 0.1


@dataclass(frozen=True)
class TargetTraining:
    """How the target is trained.

    Attributes:
        steps: Number of optimisation steps.
        batch_size: Number of stories in a step.
        learning_rate: Greatest learning rate; it rises over the first steps and falls to zero as a cosine.
        attention_decay: Weight decay of the attention; it keeps the matrices near low rank, so that they decompose
            into few components.
        mlp_decay: Weight decay of the MLPs. It is so great that next to nothing stays in them, and the attention does
            the work: what goes through an MLP takes more steps than a reader can follow in a first example.
        shared_position: Length of a direction that all positions have in common at first. Beside it a token is a small
            part of what a norm sees, so that the norms are nearly linear in it. Without it the gradient along an
            embedding is close to zero whatever the embedding does, because a norm does not see the length of its input.
        seed: Seed of initial weights and batches.
    """

    steps: int = 1200
    batch_size: int = 64
    learning_rate: float = 3e-3
    attention_decay: float = 1.0
    mlp_decay: float = 30.0
    shared_position: float = 3.0
    seed: int = 0


def train_target(config: GPT2SimpleConfig, tokens: Int[Tensor, "story seq"], training: TargetTraining) -> GPT2Simple:
    """Train a model to predict each next word.

    Args:
        config: Shape of the model.
        tokens: Stories.
        training: How to train.

    Returns:
        The model, frozen.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = _initial(config, training.shared_position)
        optimiser = torch.optim.AdamW(_decay_groups(model, training), training.learning_rate, betas=(0.9, 0.95))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(cosine, steps=training.steps))
        for _ in range(training.steps):
            batch = tokens[torch.randint(len(tokens), (training.batch_size,))]
            loss = next_word_loss(model, batch)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return model.eval().requires_grad_(requires_grad=False)


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


def _initial(config: GPT2SimpleConfig, shared_position: float) -> GPT2Simple:
    model = GPT2Simple(config)
    std = config.n_embd**-0.5
    nn.init.normal_(model.wte.weight, std=std)
    nn.init.normal_(model.wpe.weight, std=_POSITION_SPREAD * std)
    shared = torch.randn(config.n_embd)
    shared -= shared.mean()  # the norms would take the mean away
    with torch.no_grad():
        model.wpe.weight += shared_position * shared / shared.norm()
    return model


def _decay_groups(model: GPT2Simple, training: TargetTraining) -> list[dict[str, object]]:
    decay = {"attn": training.attention_decay, "mlp": training.mlp_decay}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part = next((value for key, value in decay.items() if f".{key}." in name), 0.0)
        groups.setdefault(part, []).append(parameter)
    return [{"params": parameters, "weight_decay": value} for value, parameters in groups.items()]
