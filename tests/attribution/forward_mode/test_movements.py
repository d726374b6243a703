import pytest
import torch

from lit_attr.attribution.forward_mode.movements import Movements

WRITE = torch.arange(12.0).reshape(4, 3) + 1
# Positions x components: component 2 is never active, position 1 has nothing.
WEIGHTS = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, -1.0], [5.0, 0.0, 0.0, 0.0]])


def test_sources_that_spread_have_movements_of_their_own():
    movements = Movements.of_components(WRITE, WEIGHTS, spreading=True)
    assert movements.sources.tolist() == [0, 1, 3]
    assert movements.dense(4).equal(torch.stack([WEIGHTS[:, [s]] * WRITE[s] for s in (0, 1, 3)]))


def test_sources_that_do_not_spread_share_movements():
    movements = Movements.of_components(WRITE, WEIGHTS, spreading=False)
    assert movements.count == 2
    assert movements.dense(4).sum(0).equal(WEIGHTS @ WRITE)
    places = torch.stack([movements.movement, movements.position], 1)
    assert len(places.unique(dim=0)) == len(places) == int(WEIGHTS.count_nonzero())


@pytest.mark.parametrize("spreading", [True, False])
def test_parts_are_those_of_the_whole(spreading):
    movements = Movements.of_components(WRITE, WEIGHTS, spreading)
    parts = [movements.some(slice(i, i + 1)).dense(4) for i in range(movements.count)]
    assert torch.cat(parts).equal(movements.dense(4))


def test_tokens_that_repeat_are_one_source():
    tokens, embeddings = torch.tensor([7, 2, 7]), WRITE[:3]
    spreading = Movements.of_tokens(embeddings, tokens, spreading=True)
    assert spreading.sources.tolist() == [2, 7]
    assert spreading.dense(3).equal(embeddings * torch.tensor([[0, 1, 0], [1, 0, 1]])[..., None])
    local = Movements.of_tokens(embeddings, tokens, spreading=False)
    assert local.dense(3).equal(embeddings[None])
    assert local.sources[local.source].tolist() == tokens.tolist()


@pytest.mark.parametrize("spreading", [True, False])
def test_nothing_active(spreading):
    assert Movements.of_components(WRITE, WEIGHTS * 0, spreading).count == 0
