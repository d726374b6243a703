import dataclasses

import pytest
import torch

from lit_attr.demo.mechanism import chain_scores, chains, missing_from_chains
from lit_attr.storage.file_content import Content

COUNTS = {"0.attn.v": 3, "0.attn.o": 2, "1.attn.v": 4, "1.attn.o": 5}
VOCAB, WIDTH = 6, 7


@pytest.fixture
def stored():
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    regular = {
        "1.attn.v": {"0.attn.o": random(4, 2)},
        **{f"{b}.attn.o": {f"{b}.attn.v": random(COUNTS[f"{b}.attn.o"], COUNTS[f"{b}.attn.v"])} for b in (0, 1)},
    }
    embed = {layer: random(COUNTS[layer], VOCAB) for layer in ("0.attn.v", "1.attn.v")}
    return Content(
        regular_attr=regular,
        regular_attr_abs=regular,
        embed_attr=embed,
        embed_attr_abs=embed,
        embed_unembed_attr=random(WIDTH, VOCAB),
        logit_sq_sum=random(VOCAB).square(),
        ci_threshold=0.0,
        unembed_attr={layer: random(WIDTH, COUNTS[layer]) for layer in ("0.attn.o", "1.attn.o")},
        w_unembed=random(WIDTH, VOCAB),
        ci_sum={layer: random(count).abs() + 1 for layer, count in COUNTS.items()},
        component_act_sq_sum={layer: random(count).square() + 1 for layer, count in COUNTS.items()},
        embed_token_count=torch.tensor([3, 1, 4, 1, 5, 9]),
        n_tokens_processed=23,
    )


def rms(stored, layer):
    return (stored.component_act_sq_sum[layer] / stored.n_tokens_processed).sqrt()


def test_scores_are_the_sum_of_the_products_over_all_chains(stored):
    expected = torch.zeros(VOCAB, dtype=torch.float64)
    for b in (0, 1):
        o, v = f"{b}.attn.o", f"{b}.attn.v"
        for i in range(COUNTS[o]):
            out = (stored.w_unembed[:, 2] - stored.w_unembed[:, 5]) @ stored.unembed_attr[o][:, i] / stored.ci_sum[o][i]
            for j in range(COUNTS[v]):
                mid = stored.regular_attr[o][v][i, j] / stored.ci_sum[v][j] / rms(stored, o)[i]
                e = stored.embed_attr[v][j] / stored.embed_token_count / rms(stored, v)[j]
                expected += out * mid * (e - stored.embed_attr[v][j].sum() / rms(stored, v)[j] / 23)
    torch.testing.assert_close(chain_scores(stored, 2, 5), expected)


def test_an_average_token_has_no_score(stored):
    scores = chain_scores(stored, 2, 5)
    assert scores.abs().max() > 0.1
    assert float(scores @ stored.embed_token_count.double()) == pytest.approx(0, abs=1e-9)


def test_contrast_of_the_words_the_other_way_round_has_the_other_sign(stored):
    torch.testing.assert_close(chain_scores(stored, 2, 5), -chain_scores(stored, 5, 2))


def test_twice_the_data_changes_nothing(stored):
    def twice(value):
        if isinstance(value, dict):
            return {k: twice(v) for k, v in value.items()}
        return None if value is None else 2 * value

    values = {f.name: getattr(stored, f.name) for f in dataclasses.fields(stored)}
    doubled = Content(**{k: v if k == "w_unembed" else twice(v) for k, v in values.items()})
    torch.testing.assert_close(chain_scores(doubled, 2, 5), chain_scores(stored, 2, 5))


def test_most_telling_chains_come_first_and_all_of_them_sum_to_the_difference_of_the_scores(stored):
    block = chains(stored, 2, 5)[1]
    found = block.most_telling([0, 3], [1], k=100)
    assert len(found) == COUNTS["1.attn.o"] * COUNTS["1.attn.v"]
    assert [x for *_, x in found] == sorted((x for *_, x in found), reverse=True)
    expected = block.scores[[0, 3]].mean() - block.scores[1]
    assert sum(x for *_, x in found) == pytest.approx(expected.item())


def test_chains_of_components_that_were_no_targets_are_named(stored):
    """They are no zeros: nothing was measured. A component without causal importance has no chains to be missed."""
    ci_sum = {**stored.ci_sum, "0.attn.v": stored.ci_sum["0.attn.v"].clone()}
    ci_sum["0.attn.v"][1] = 0
    not_targets = {"0.attn.v": [1, 2], "1.attn.o": [0], "0.mlp.up": [0]}
    partly = dataclasses.replace(stored, ci_sum=ci_sum, provenance={"not_targets": not_targets})
    assert {*map(str, missing_from_chains(partly))} == {"0.attn.v:2", "1.attn.o:0"}
    assert missing_from_chains(stored) == []
