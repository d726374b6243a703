"""Build the demo: stories, a target model, its decomposition for three seeds, and figures that say how good they are.

    python -m tools.demo.build --out DIR

It takes some ten minutes on two cores. Without `--out` the files go where the package keeps them.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor

from lit_attr.assets import ASSETS, FIGURES, SEEDS, TOKENIZER, TOKENS, run_folder
from lit_attr.decomposition.patterns import expand_patterns
from lit_attr.decomposition.targets.gpt2_simple import GPT2Simple, GPT2SimpleConfig
from lit_attr.demo.grammar import story, vocabulary
from tools.demo.decompose import DecompositionTraining, decompose
from tools.demo.orient import orient_
from tools.demo.readme import write_readme
from tools.demo.report import describe
from tools.demo.target import TargetTraining, train_target
from tools.demo.write_run import decomposed_model, run_options, write_run

_CI_OPTIONS = {"mode": "layerwise", "fn_type": "shared_mlp", "hidden_dims": [64]}
_ATTENTION_COMPONENTS = 40
_MLP_COMPONENTS = 16
_STORY_SEED = 0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is built.

    Attributes:
        target: How the target is trained.
        decomposition: How each decomposition is trained.
        n_stories: Number of stories that are trained on.
        n_shipped: Number of stories in the token file; they are not trained on.
        n_layer: Number of blocks of the target.
        n_head: Number of heads of a block.
        n_embd: Width of the residual stream.
        context: Number of tokens of a story.
    """

    target: TargetTraining = field(default_factory=TargetTraining)
    decomposition: DecompositionTraining = field(default_factory=DecompositionTraining)
    n_stories: int = 30_000
    n_shipped: int = 4_000
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 48
    context: int = 32


def main(args: Sequence[str] | None = None) -> None:
    """Build into the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo.build", description="Build the demo.")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder for the files (default: %(default)s)")
    build(parser.parse_args(args).out, Recipe())


def build(out: Path, recipe: Recipe) -> None:
    """Build everything, and print the figures.

    Args:
        out: Folder for the files; made if it is not there.
        recipe: Everything that decides what is built.
    """
    started = time.monotonic()
    torch.set_num_threads(1)  # the models are too small for more, and sums are taken in the same order everywhere
    out.mkdir(parents=True, exist_ok=True)
    words = vocabulary()
    word_tokenizer(words).save(str(out / TOKENIZER))
    stories = _stories(words, recipe.n_stories + recipe.n_shipped, recipe.context)
    training, shipped = stories.split((recipe.n_stories, recipe.n_shipped))
    np.save(out / TOKENS, shipped.numpy().astype(np.uint8))
    config = GPT2SimpleConfig(
        block_size=recipe.context,
        vocab_size=len(words),
        n_layer=recipe.n_layer,
        n_head=recipe.n_head,
        n_embd=recipe.n_embd,
    )
    target = train_target(config, training, recipe.target)
    print(f"target trained after {time.monotonic() - started:.0f} s", flush=True)
    jobs = [(out, recipe, config, target.state_dict(), training, seed) for seed in SEEDS]
    with ProcessPoolExecutor(min(len(jobs), os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        list(pool.map(_decompose_and_write, *zip(*jobs, strict=True)))
    print(f"decompositions trained after {time.monotonic() - started:.0f} s", flush=True)
    figures = {**describe(out, shipped), "recipe": asdict(recipe), "seconds": round(time.monotonic() - started)}
    (out / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    write_readme(out, figures)
    print(json.dumps(figures, indent=1))


def word_tokenizer(words: Sequence[str]) -> Tokenizer:
    """A tokenizer that splits at blanks and gives each word its place in the vocabulary.

    Args:
        words: The vocabulary; the first word stands for every word that is not in it.
    """
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return tokenizer


def _stories(words: Sequence[str], count: int, context: int) -> Tensor:
    ids = {word: index for index, word in enumerate(words)}
    rng = random.Random(_STORY_SEED)
    return torch.tensor([[ids[word] for word in story(rng, context)] for _ in range(count)])


def _decompose_and_write(
    out: Path, recipe: Recipe, config: GPT2SimpleConfig, target_state: dict[str, Any], tokens: Tensor, seed: int
) -> None:
    torch.set_num_threads(1)
    target = GPT2Simple(config).eval().requires_grad_(requires_grad=False)
    target.load_state_dict(target_state)
    modules = {
        **{f"h.*.attn.{name}_proj": _ATTENTION_COMPONENTS for name in "qkvo"},
        **{f"h.*.mlp.{name}": _MLP_COMPONENTS for name in ("c_fc", "down_proj")},
    }
    counts = expand_patterns(tuple(modules.items()), target)
    components, ci_fn = decompose(target, counts, _CI_OPTIONS, tokens, recipe.decomposition, seed)
    options = run_options(modules, _CI_OPTIONS, recipe.decomposition, seed, recipe.context)
    model = decomposed_model(target, config, components, ci_fn, options)
    orient_(model, tokens[:256])
    write_run(run_folder(seed, out), model, config, options)


if __name__ == "__main__":
    main()
