"""What is shipped: it loads, it is small, its figures are true, and the mechanism is there for every seed."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from lit_attr.assets import ASSETS, FIGURES, SEEDS, TOKENIZER, TOKENS, run_folder
from lit_attr.decomposition.load import load_run
from lit_attr.demo.grammar import NAMES, vocabulary
from lit_attr.demo.mechanism import chain_scores
from lit_attr.storage.dataset_attributions import DatasetAttributionStorage
from tools.demo.attributions import harvest_chains
from tools.demo.figures import measure
from tools.demo.intervention import exchange_names
from tools.demo.readme import write_readme
from tools.demo.report import BATCH_SIZE, CONTRASTS, N_HARVESTED, N_MEASURED, describe

RECORDED = json.loads((ASSETS / FIGURES).read_text())
IDS = {word: index for index, word in enumerate(vocabulary())}


@cache
def run(seed):
    return load_run(run_folder(seed))


@cache
def stories():
    return torch.from_numpy(np.load(ASSETS / TOKENS).astype(np.int64))


@cache
def attributions(seed):
    """Over the first set of stories."""
    model = run(seed).model
    (sums,), read = harvest_chains(model, [stories()[:N_HARVESTED]], BATCH_SIZE)
    return DatasetAttributionStorage.from_sums(sums, read, model.unembedding, 0.0)


def test_assets_are_below_six_megabytes():
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 6_000_000


def test_tokens_are_stories_of_the_tokenizer():
    tokenizer = Tokenizer.from_file(str(ASSETS / TOKENIZER))
    assert [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())] == vocabulary()
    assert stories().shape == (4000, 32)
    words = tokenizer.decode(stories()[0].tolist(), skip_special_tokens=False).split()
    assert set(words) & {name for names in NAMES.values() for name in names}


@pytest.mark.parametrize("seed", SEEDS)
def test_run_loads_under_its_id(seed):
    assert run(seed).run_id == f"s-litdemo{seed}"
    assert run(seed).model.block_size == 32
    assert run(seed).model.vocab_size == len(vocabulary())


@pytest.mark.parametrize("seed", SEEDS)
def test_recorded_figures_are_true(seed):
    measured = measure(run(seed).model, stories()[:N_MEASURED])
    recorded = RECORDED["runs"][str(seed)]
    for name in ("target_cross_entropy", "faithfulness", "kl_all_ones", "kl_ci", "l0"):
        assert getattr(measured, name) == pytest.approx(recorded[name], rel=1e-3, abs=1e-7), name
    assert measured.n_components == recorded["n_components"]


@pytest.mark.parametrize("seed", SEEDS)
def test_decomposition_reconstructs_with_few_components(seed):
    recorded = RECORDED["runs"][str(seed)]
    assert recorded["kl_ci"] < 0.1
    assert recorded["kl_all_ones"] < 0.1
    assert recorded["l0"] < recorded["n_components"] / 10


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_pronoun_follows_the_name_when_the_name_is_exchanged(contrast):
    found = exchange_names(run(0).model.target_model, stories()[:1000], *contrast)
    assert len(found.female) > 100
    assert found.follows > 0.99
    assert found.female.mean() > 5
    assert found.male.mean() < -5


def groups(scores):
    return [torch.tensor([scores[name] for name in NAMES[kind]]) for kind in ("female", "male")]


def difference_of_means(scores):
    female, male = groups(scores)
    return float(female.mean() - male.mean())


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_recorded_scores_are_true(seed):
    recorded = RECORDED["runs"][str(seed)]["chain_scores_by_set"][0]
    for contrast in CONTRASTS:
        by_name = recorded[" - ".join(contrast)]
        assert list(by_name) == [*NAMES["female"], *NAMES["male"]]
        scores = chain_scores(attributions(seed), *(IDS[word] for word in contrast))
        measured = torch.stack([scores[IDS[name]] for name in by_name])
        torch.testing.assert_close(measured, torch.tensor(list(by_name.values())), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("seed", SEEDS)
def test_chains_push_her_against_him_from_female_names_and_the_reverse_from_male_ones(seed):
    """Over all stories; a score is that of an average token's less."""
    female, male = groups(RECORDED["runs"][str(seed)]["chain_scores"]["her - him"])
    assert female.mean() > 0 > male.mean()
    assert len(female) == len(male) == 6


@pytest.mark.parametrize("seed", SEEDS)
def test_the_exchange_of_the_gender_has_its_effect_in_every_set_of_stories(seed):
    """Not for one lucky set: the sets are disjoint."""
    sets = RECORDED["runs"][str(seed)]["chain_scores_by_set"]
    assert len(sets) == 4
    for scores in sets:
        for contrast in CONTRASTS:
            assert difference_of_means(scores[" - ".join(contrast)]) > 1


def test_in_the_demos_own_run_every_name_has_the_sign_of_its_gender():
    female, male = groups(RECORDED["runs"]["0"]["chain_scores"]["her - him"])
    assert (female > 0).all()
    assert (male < 0).all()


@pytest.mark.slow
def test_all_recorded_figures_are_true():
    again = describe(ASSETS, stories())
    for seed in map(str, SEEDS):
        for key in ("chain_scores", "chain_scores_by_set"):
            parts = [
                (r[key] if isinstance(r[key], list) else [r[key]])
                for r in (again["runs"][seed], RECORDED["runs"][seed])
            ]
            for mine, theirs in zip(*parts, strict=True):
                for contrast, by_name in theirs.items():
                    assert mine[contrast] == pytest.approx(by_name, rel=1e-2, abs=1e-2)


def test_the_readme_is_what_the_figures_make(tmp_path):
    write_readme(tmp_path, RECORDED)
    assert (tmp_path / "README.md").read_text() == (ASSETS / "README.md").read_text()
