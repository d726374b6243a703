"""The README of a built demo."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lit_attr.assets import SEEDS
from lit_attr.demo.grammar import NAMES
from tools.demo.report import CONTRASTS, N_HARVESTED, N_MEASURED


def write_readme(assets: Path, figures: Mapping[str, Any]) -> None:
    """Write the README of a built demo.

    Args:
        assets: Folder that the demo was built into.
        figures: Figures that `tools.demo.report.describe` returned, the recipe, and the seconds that the build took.
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
        "Made by `python -m tools.demo.build`, which makes all of it again "
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
        "Two things were done to the target so that a first example has a straight answer. Its MLPs are decayed to "
        "next to nothing, so attention does the work, and hardly any MLP component is ever active. And all positions "
        "begin with a large direction in common, which keeps the norms nearly linear: the gradient along an embedding "
        "that fills its norm's input is close to zero. The decompositions are trained on faithfulness, reconstruction "
        "under stochastic masks and under the causal importances themselves, and a penalty on causal importances that "
        "grows from zero.",
        "",
        _row("seed", runs),
        _row("---", ["---"] * len(runs)),
        *(_row(title, [f"{run[key]:.3g}" for run in runs.values()]) for title, key in rows.items()),
        "",
        "## A mechanism that can be found",
        "",
        "Exchange the name of a story, and the logits where its first pronoun is due follow "
        "(`tools/demo/intervention.py`):",
        "",
        "| logit difference | with a female name | with a male name | stories in which the sign follows |",
        "|---|---|---|---|",
        *(
            f"| {contrast} | {logits['female_mean']:+.2f} | {logits['male_mean']:+.2f} | {logits['follows']:.1%} |"
            for contrast, logits in figures["intervention"].items()
        ),
        "",
        "The attributions show it as chains from a name through value and attention-output components to the two "
        "words' logits; `lit_attr/demo/mechanism.py` states the formula and how to read a score. Scores of the names, "
        f"`{CONTRASTS[0][0]}` minus `{CONTRASTS[0][1]}`, over all stories:",
        "",
    ]
    contrast = " - ".join(CONTRASTS[0])
    names = [*NAMES["female"], *NAMES["male"]]
    n_sets = len(first["chain_scores_by_set"])
    lines += [
        _row("seed", names),
        _row("---", ["---"] * len(names)),
        *(_row(seed, [f"{run['chain_scores'][contrast][name]:+.1f}" for name in names]) for seed, run in runs.items()),
        "",
        "A name by itself is noisy: sums over a data set mix all the roles that a component plays. What is steady is "
        f"the exchange of the gender. Means over the names of each, female / male, over {n_sets} disjoint sets of "
        f"{N_HARVESTED} stories and over all of them:",
        "",
        _row("seed", [*(f"set {number + 1}" for number in range(n_sets)), "all", "she - he, all"]),
        _row("---", ["---"] * (n_sets + 2)),
        *(
            _row(
                seed,
                [
                    *(_means(part[contrast]) for part in (*run["chain_scores_by_set"], run["chain_scores"])),
                    _means(run["chain_scores"][" - ".join(CONTRASTS[1])]),
                ],
            )
            for seed, run in runs.items()
        ),
        "",
        f"`{CONTRASTS[1][0]}` minus `{CONTRASTS[1][1]}` has the right difference too, but not always the right signs.",
        "",
    ]
    word, other = CONTRASTS[0]
    lines += [
        f"The chains of seed {SEEDS[0]} that tell the genders apart best, to `{word}` minus `{other}`. A chain's "
        "product is *out* times *mid* times the name's value:",
        "",
        _row("chain", ["out", "mid", *names]),
        _row("---", ["---"] * (2 + len(names))),
        *(
            _row(
                f"`{chain['o']}` <- `{chain['v']}`",
                [f"{value:+.2f}" for value in (chain["out"], chain["mid"], *chain["into"].values())],
            )
            for chain in first["telling_chains"]
        ),
        "",
    ]
    (assets / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _means(scores: Mapping[str, float]) -> str:
    """Mean scores of the female and of the male names."""
    female, male = (sum(scores[name] for name in NAMES[kind]) / len(NAMES[kind]) for kind in ("female", "male"))
    return f"{female:+.1f} / {male:+.1f}"


def _row(title: str, cells: Iterable[str]) -> str:
    return f"| {title} | " + " | ".join(cells) + " |"
