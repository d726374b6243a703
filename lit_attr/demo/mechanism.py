"""A mechanism read from attributions: from a name, through attention, to the pronoun that it asks for.

A name is some words away from the pronoun, and only attention carries anything from one position to another. The chain
is

    token -> value component (L.attn.v) -> attention-output component (L.attn.o) -> a word's logit minus another's

and a token's score is the sum over all chains, in all blocks L, of the products of the three edges. All edges are
signed sums over a data set, so each is normalised first, as attributions are at query time:

    score(t) = sum_L sum_ij  out[i] * mid[i, j] * in[j, t]

    out[i]    = (W_U[:, word] - W_U[:, other]) . unembed_attr[L.attn.o][:, i] / ci_sum[L.attn.o][i]
    mid[i, j] = regular_attr[L.attn.o][L.attn.v][i, j] / (ci_sum[L.attn.v][j] * rms[L.attn.o][i])
    in[j, t]  = e[j, t] - sum_u count[u] e[j, u] / sum_u count[u]
    e[j, t]   = embed_attr[L.attn.v][j, t] / (count[t] * rms[L.attn.v][j])

`rms` is the root mean square of a component's activation. So a component between is divided once by how strongly it is
driven (`rms`, as a target) and once by how often it matters (`ci_sum`, as a source). Without this a chain's weight
would grow with the frequency of its components squared, and with the arbitrary lengths of the directions they read.

The edge from an embedding holds what all embeddings have in common beside what tells them apart; the mean over all
occurrences of tokens is taken from it, so that a score says how a token differs from an average one.

How to read a score: its sign means something only if each component's activation is positive where it matters, see
`tools.demo.orient`. Sums over a data set mix all the roles that a component plays, so that a score of one token is
not a measurement of one mechanism; the difference between groups of tokens that differ in one respect is far steadier.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.storage.compact import dense
from lit_attr.storage.file_content import Content
from lit_attr.storage.harvested_targets import HarvestedTargets
from lit_attr.topology.address import ComponentKey

_EPS = 1e-10


@dataclass(frozen=True)
class Chains:
    """The normalised edges of one block's chains.

    Attributes:
        out: Edges from attention-output components to the logit of one word minus that of another.
        mid: Edges from value components to attention-output components.
        into: Edges from tokens to value components, less the edge of an average token.
    """

    out: Float[Tensor, " o"]
    mid: Float[Tensor, "o v"]
    into: Float[Tensor, "v vocab"]

    @property
    def scores(self) -> Float[Tensor, " vocab"]:
        """The score of each token: the sum over the block's chains from it."""
        return self.out @ self.mid @ self.into

    def most_telling(self, tokens: Sequence[int], others: Sequence[int], k: int) -> list[tuple[int, int, float]]:
        """The chains that tell two groups of tokens apart best.

        Args:
            tokens: Token ids that a chain should score high.
            others: Token ids that it should score low.
            k: Number of chains.

        Returns:
            Index of the attention-output component, index of the value component, and the difference between the mean
            products of the two groups; the greatest difference first.
        """
        apart = self.into[:, list(tokens)].mean(1) - self.into[:, list(others)].mean(1)
        differences = self.out[:, None] * self.mid * apart
        order = differences.flatten().topk(min(k, differences.numel())).indices.tolist()
        places = [divmod(place, differences.shape[1]) for place in order]
        return [(o, v, differences[o, v].item()) for o, v in places]


def chains(stored: Content, word: int, other: int) -> dict[int, Chains]:
    """The chains to a contrast of two words, block by block.

    Args:
        stored: Sums over a data set.
        word: Token id of the word whose logit counts.
        other: Token id of the word whose logit is subtracted.

    Returns:
        Index of each block whose attention is decomposed to its chains.
    """
    stored = dense(stored)
    contrast = stored.w_unembed[:, word] - stored.w_unembed[:, other]
    count = stored.embed_token_count.clamp(min=1)
    frequency = stored.embed_token_count.double() / stored.embed_token_count.sum()
    blocks: dict[int, Chains] = {}
    for layer in stored.unembed_attr:
        block, _, matrix = layer.partition(".")
        values = f"{block}.attn.v"
        if matrix != "attn.o" or values not in stored.embed_attr or values not in stored.regular_attr.get(layer, {}):
            continue
        into = stored.embed_attr[values] / count / _rms(stored, values)[:, None]
        blocks[int(block)] = Chains(
            out=contrast @ stored.unembed_attr[layer] / stored.ci_sum[layer].clamp(min=_EPS),
            mid=stored.regular_attr[layer][values]
            / stored.ci_sum[values].clamp(min=_EPS)
            / _rms(stored, layer)[:, None],
            into=into - (into @ frequency.to(into.dtype))[:, None],
        )
    return blocks


def missing_from_chains(stored: Content) -> list[ComponentKey]:
    """The components whose chains are not in the scores, though they matter in the data.

    They were no targets of the harvest, so that what feeds them was not measured. Components without causal importance
    have no chains.

    Args:
        stored: Sums over a data set.
    """
    harvested = HarvestedTargets(stored)
    return [
        ComponentKey(layer, index)
        for layer, importance in stored.ci_sum.items()
        if layer.endswith((".attn.v", ".attn.o"))
        for index in harvested.missing(layer).tolist()
        if importance[index] > 0
    ]


def chain_scores(stored: Content, word: int, other: int) -> Float[Tensor, " vocab"]:
    """The score of each token: how much it pushes one word against another along all chains.

    Args:
        stored: Sums over a data set.
        word: Token id of the word whose logit counts.
        other: Token id of the word whose logit is subtracted.
    """
    return torch.stack([part.scores for part in chains(stored, word, other).values()]).sum(0)


def _rms(stored: Content, layer: str) -> Float[Tensor, " component"]:
    """Root mean square of the activations of a layer's components."""
    return (stored.component_act_sq_sum[layer] / stored.n_tokens_processed).sqrt().clamp(min=_EPS)
