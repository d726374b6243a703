"""The figures of a built demo, and the README that states them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from lit_attr.decomposition.load import load_run
from lit_attr.demo.attributions import harvest_chains
from lit_attr.demo.figures import measure
from lit_attr.demo.grammar import NAMES, vocabulary
from lit_attr.demo.intervention import exchange_names
from lit_attr.demo.mechanism import chain_scores
from lit_attr.demo.paths import SEEDS, run_folder

CONTRASTS = (("her", "him"), ("she", "he"))
N_MEASURED = 256
N_HARVESTED = 1024
BATCH_SIZE = 32


def describe(assets: Path, tokens: Int[Tensor, "story seq"]) -> dict[str, Any]:
    """Measure what was built.

    Args:
        assets: The folder that it was built into.
        tokens: Its stories; the first ones are used.
    """
    ids = {word: index for index, word in enumerate(vocabulary())}
    runs: dict[str, Any] = {}
    for seed in SEEDS:
        model = load_run(run_folder(seed, assets)).model
        attributions = harvest_chains(model, tokens[:N_HARVESTED], BATCH_SIZE)
        scores = {}
        for word, other in CONTRASTS:
            by_token = chain_scores(attributions, ids[word], ids[other])
            names = [name for kind in ("female", "male") for name in NAMES[kind]]
            scores[f"{word} - {other}"] = {name: by_token[ids[name]].item() for name in names}
        runs[str(seed)] = {**asdict(measure(model, tokens[:N_MEASURED])), "chain_scores": scores}
        target = model.target_model
    interventions = {}
    for word, other in CONTRASTS:
        found = exchange_names(target, tokens, word, other)
        interventions[f"{word} - {other}"] = {
            "stories": len(found.female),
            "female_mean": found.female.mean().item(),
            "male_mean": found.male.mean().item(),
            "follows": found.follows,
        }
    return {"runs": runs, "intervention": interventions}


def write_readme(assets: Path, figures: Mapping[str, Any]) -> None:
    """Write the README of a built demo.

    Args:
        assets: The folder that it was built into.
        figures: As `describe` returns them, with the recipe and the seconds that the build took.
    """
    runs: Mapping[str, Any] = figures["runs"]
    first = runs[str(SEEDS[0])]
    rows = {
        "KL, components masked by causal importance": "kl_ci",
        "KL, all components on": "kl_all_ones",
        "active components per position (L0)": "l0",
        "faithfulness error (mean square)": "faithfulness",
        "components that are ever active": "n_alive",
    }
    lines = [
        "# The demo's model, decomposition and stories",
        "",
        "Made by `python -m lit_attr.demo.build`, which makes all of it again "
        f"(it took {figures['seconds'] / 60:.0f} minutes on two cores). Nothing here comes from elsewhere.",
        "",
        "| file | what it is |",
        "|---|---|",
        "| `runs/demo-s-litdemo<seed>/` | decomposition runs of the same target in the format of goodfire-ai/spd; "
        "seed 0 is the demo's |",
        "| `tokens.npy` | stories of the grammar in `lit_attr/demo/grammar.py`, a row each; not trained on |",
        "| `tokenizer.json` | the word-level tokenizer, for the library `tokenizers` |",
        "| `figures.json` | the figures below, in full, and the recipe |",
        "",
        f"The target is a GPT2Simple; its cross-entropy is {first['target_cross_entropy']:.3f} nats per word. "
        f"Its matrices are decomposed into {first['n_components']} components. Figures are means over the first "
        f"{N_MEASURED} stories; divergences are from the target's distribution, in nats per position.",
        "",
        _row("seed", runs),
        _row("---", ["---"] * len(runs)),
        *(_row(title, [f"{run[key]:.3g}" for run in runs.values()]) for title, key in rows.items()),
        "",
        "## A mechanism that can be found",
        "",
        "Exchange the name of a story, and the logits where its first pronoun is due follow "
        "(`lit_attr/demo/intervention.py`):",
        "",
        "| logit difference | with a female name | with a male name | stories in which the sign follows |",
        "|---|---|---|---|",
        *(
            f"| {contrast} | {found['female_mean']:+.2f} | {found['male_mean']:+.2f} | {found['follows']:.1%} |"
            for contrast, found in figures["intervention"].items()
        ),
        "",
        "The attributions show it as chains from a name through value and attention-output components to the two "
        "words' logits; `lit_attr/demo/mechanism.py` states the formula. Scores of the names, harvested over "
        f"{N_HARVESTED} stories. What counts is the difference between names: all of them share a part that says "
        "nothing.",
        "",
    ]
    for word, other in CONTRASTS:
        contrast = f"{word} - {other}"
        names = list(first["chain_scores"][contrast])
        lines += [
            _row(contrast, names),
            _row("---", ["---"] * len(names)),
            *(
                _row(f"seed {seed}", [f"{run['chain_scores'][contrast][name]:+.2f}" for name in names])
                for seed, run in runs.items()
            ),
            "",
        ]
    (assets / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _row(title: str, cells: Iterable[str]) -> str:
    return f"| {title} | " + " | ".join(cells) + " |"
