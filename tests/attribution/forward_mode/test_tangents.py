import pytest
import torch

from lit_attr.attribution.forward_mode.tangents import Tangents

WRITE = torch.arange(12.0).reshape(4, 3) + 1
# Positions x components: component 2 is never active, position 1 has nothing.
WEIGHTS = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, -1.0], [5.0, 0.0, 0.0, 0.0]])


def test_one_source_in_each_tangent():
    tangents = Tangents.of_components(WRITE, WEIGHTS, one_source_each=True)
    assert tangents.sources.tolist() == [0, 1, 3]
    assert tangents.dense(4).equal(torch.stack([WEIGHTS[:, [s]] * WRITE[s] for s in (0, 1, 3)]))


def test_sources_share_tangents():
    tangents = Tangents.of_components(WRITE, WEIGHTS, one_source_each=False)
    assert tangents.count == 2
    assert tangents.dense(4).sum(0).equal(WEIGHTS @ WRITE)
    places = torch.stack([tangents.tangent, tangents.position], 1)
    assert len(places.unique(dim=0)) == len(places) == int(WEIGHTS.count_nonzero())


@pytest.mark.parametrize("single", [True, False])
def test_parts_are_those_of_the_whole(single):
    tangents = Tangents.of_components(WRITE, WEIGHTS, one_source_each=single)
    parts = [tangents.some(slice(i, i + 1)).dense(4) for i in range(tangents.count)]
    assert torch.cat(parts).equal(tangents.dense(4))


def test_tokens_that_repeat_are_one_source():
    tokens, embeddings = torch.tensor([7, 2, 7]), WRITE[:3]
    single = Tangents.of_tokens(embeddings, tokens, one_source_each=True)
    assert single.sources.tolist() == [2, 7]
    assert single.dense(3).equal(embeddings * torch.tensor([[0, 1, 0], [1, 0, 1]])[..., None])
    local = Tangents.of_tokens(embeddings, tokens, one_source_each=False)
    assert local.dense(3).equal(embeddings[None])
    assert local.sources[local.source].tolist() == tokens.tolist()


@pytest.mark.parametrize("single", [True, False])
def test_nothing_active(single):
    assert Tangents.of_components(WRITE, WEIGHTS * 0, one_source_each=single).count == 0
