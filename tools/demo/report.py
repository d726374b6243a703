"""The figures of a built demo."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from lit_attr.assets import SEEDS, run_folder
from lit_attr.decomposition.load import load_run
from lit_attr.demo.grammar import NAMES, vocabulary
from lit_attr.demo.mechanism import chain_scores, chains
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from lit_attr.storage.file_content import Content
from lit_attr.topology.sums import Sums
from tools.demo.attributions import harvest_chains
from tools.demo.figures import measure
from tools.demo.intervention import exchange_names

CONTRASTS = (("her", "him"), ("she", "he"))
N_MEASURED = 256
# Number of stories in each of the disjoint sets over which scores are harvested: how far the sets agree shows how far
# to trust the scores.
N_HARVESTED = 1000
BATCH_SIZE = 50
N_CHAINS = 3


def describe(assets: Path, tokens: Int[Tensor, "story seq"]) -> dict[str, Any]:
    """Measure what was built.

    Args:
        assets: Folder that the demo was built into.
        tokens: Stories of the demo.
    """
    ids = {word: index for index, word in enumerate(vocabulary())}
    runs: dict[str, Any] = {}
    for seed in SEEDS:
        model = load_run(run_folder(seed, assets)).model
        sums, read = harvest_chains(model, tokens.split(N_HARVESTED), BATCH_SIZE)
        stored = [
            DatasetAttributionStorage.from_sums(part, read, model.unembedding, 0.0) for part in (*sums, total(sums))
        ]
        runs[str(seed)] = {
            **asdict(measure(model, tokens[:N_MEASURED])),
            "chain_scores": _scores(stored[-1], ids),
            "chain_scores_by_set": [_scores(part, ids) for part in stored[:-1]],
            "telling_chains": _telling_chains(stored[-1], ids),
        }
        target = model.target_model
    interventions = {}
    for word, other in CONTRASTS:
        logits = exchange_names(target, tokens, word, other)
        interventions[f"{word} - {other}"] = {
            "stories": len(logits.female),
            "female_mean": logits.female.mean().item(),
            "male_mean": logits.male.mean().item(),
            "follows": logits.follows,
        }
    return {"runs": runs, "intervention": interventions}


def total(parts: Sequence[Sums]) -> Sums:
    """The sums over all sets of stories."""
    added = deepcopy(parts[0])
    for part in parts[1:]:
        added.add_(part)
    return added


def _names() -> list[str]:
    return [*NAMES["female"], *NAMES["male"]]


def _scores(attributions: Content, ids: Mapping[str, int]) -> dict[str, dict[str, float]]:
    scores = {}
    for word, other in CONTRASTS:
        by_token = chain_scores(attributions, ids[word], ids[other])
        scores[f"{word} - {other}"] = {name: by_token[ids[name]].item() for name in _names()}
    return scores


def _telling_chains(attributions: Content, ids: Mapping[str, int]) -> list[dict[str, Any]]:
    """The chains of the first contrast, over all blocks, that tell the genders apart best."""
    female, male = ([ids[name] for name in NAMES[kind]] for kind in ("female", "male"))
    telling: list[dict[str, Any]] = []
    for block, edges in chains(attributions, *(ids[word] for word in CONTRASTS[0])).items():
        for o, v, difference in edges.most_telling(female, male, N_CHAINS):
            telling.append(
                {
                    "difference": difference,
                    "o": f"{block}.attn.o:{o}",
                    "v": f"{block}.attn.v:{v}",
                    "out": edges.out[o].item(),
                    "mid": edges.mid[o, v].item(),
                    "into": {name: edges.into[v, ids[name]].item() for name in _names()},
                }
            )
    return sorted(telling, key=lambda chain: -chain["difference"])[:N_CHAINS]
