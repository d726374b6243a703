"""Exchanging the name in a story: the mechanism of the target model shown without attributions."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lit_attr.demo.grammar import NAMES, PRONOUNS, vocabulary


@dataclass(frozen=True)
class Intervention:
    """The logit of the female word minus that of the male one, where a story's first pronoun is due.

    Attributes:
        female: Values of the stories with a female name.
        male: Values of the same stories with a male name in its place.
    """

    female: Float[Tensor, " story"]
    male: Float[Tensor, " story"]

    @property
    def follows(self) -> float:
        """Part of the stories in which the sign follows the name."""
        return ((self.female > 0) & (self.male < 0)).float().mean().item()


@torch.no_grad()
def exchange_names(
    target: nn.Module, tokens: Int[Tensor, "story seq"], female_word: str, male_word: str
) -> Intervention:
    """Exchange the gender of the name in stories, and see whether the pronoun's logits follow.

    The stories that count are those about one person whose first pronoun is one of the two words. A name changes into
    the name at the same place in the other gender's list.

    Args:
        target: The target model, from token ids to logits.
        tokens: Stories.
        female_word: Pronoun such as `her`.
        male_word: Pronoun such as `him`.
    """
    ids = {word: index for index, word in enumerate(vocabulary())}
    pronouns = torch.tensor([ids[word] for kind in ("female", "male") for word in PRONOUNS[kind]])
    is_pronoun = torch.isin(tokens, pronouns)
    first = is_pronoun.int().argmax(1)
    rows = torch.arange(len(tokens))
    wanted = torch.isin(tokens[rows, first], torch.tensor([ids[female_word], ids[male_word]]))
    rows, first = rows[wanted], first[wanted]
    pairs = list(zip(NAMES["female"], NAMES["male"], strict=True))
    to_female, to_male = torch.arange(len(ids)), torch.arange(len(ids))
    for female, male in pairs:
        to_female[ids[male]] = ids[female]
        to_male[ids[female]] = ids[male]

    def difference(exchange: Tensor) -> Tensor:
        # What stands at the pronoun and behind it is not seen where the pronoun is due.
        logits = target(exchange[tokens[rows]])[torch.arange(len(rows)), first - 1]
        return logits[:, ids[female_word]] - logits[:, ids[male_word]]

    return Intervention(female=difference(to_female), male=difference(to_male))
