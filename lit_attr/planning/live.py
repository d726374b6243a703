"""How much of a model is expected to live, and from where that is known."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lit_attr.errors import ConfigurationError
from lit_attr.harvest.needs import Live
from lit_attr.harvest.shape import Shape
from lit_attr.harvest.targets import TargetRule
from lit_attr.storage.file_content import Content
from lit_attr.topology.address import EMBED

# Share of a layer's components with causal importance at a position, where nothing is known of the run.
USUAL_DENSITY = 0.01


@dataclass(frozen=True)
class LiveEstimate:
    """What is expected to live.

    Attributes:
        live: Numbers of sources and targets.
        origin: Where they are from, for people.
        density: Share of a layer's components with causal importance at a position; None where that is not known.
    """

    live: Live
    origin: str
    density: float | None = None

    @classmethod
    def by_share(cls, shape: Shape, share: float | None, rule: TargetRule) -> "LiveEstimate":
        """A share of every layer; all of it where none is given.

        Args:
            shape: The model without numbers.
            share: Share of the components that live.
            rule: Which components are targets: all of them, or those that live.

        Raises:
            ConfigurationError: If the share is none.
        """
        if share is None:
            return cls(Live.all(shape.topology), "nothing is known of it: everything is taken to live (--alive_share)")
        if not 0 < share <= 1:
            raise ConfigurationError(f"--alive_share must be above 0 and at most 1, found {share}")
        counts = shape.topology.n_components
        alive = {layer: math.ceil(share * count) for layer, count in counts.items()}
        all_are_targets = rule.harvest_db is None and rule.alive_batches is None
        return cls(_with_tokens(shape, alive, counts if all_are_targets else alive), f"--alive_share {share:g}")

    @classmethod
    def by_database(cls, shape: Shape, rule: TargetRule, run_id: str) -> "LiveEstimate":
        """What fired in another harvest; arguments and errors as for `TargetRule.known`."""
        known = rule.known(shape.model, run_id)
        alive = {layer: int(mask.sum()) for layer, mask in (known or {}).items()}
        return cls(_with_tokens(shape, alive, alive), f"what fired in {rule.harvest_db}")

    @classmethod
    def by_result(cls, shape: Shape, content: Content, where: str) -> "LiveEstimate":
        """What lived in an earlier harvest of the same run.

        Args:
            shape: The model without numbers.
            content: The earlier result.
            where: Its name.

        Raises:
            ConfigurationError: If it is that of another model.
        """
        counts = {layer: len(sums) for layer, sums in content.ci_sum.items()}
        if counts != dict(shape.topology.n_components):
            raise ConfigurationError(f"{where} is the result of a model with other components than the plan's")
        alive = {layer: int((sums != 0).sum()) for layer, sums in content.ci_sum.items()}
        squares = content.component_act_sq_sum
        targets = {layer: counts[layer] - len(content.recorded.not_targets(layer)) for layer in squares}
        tokens = int((content.embed_token_count > 0).sum())
        total_ci = sum(float(sums.sum()) for sums in content.ci_sum.values())
        density = total_ci / content.n_tokens_processed / sum(counts.values())
        return cls(Live({**alive, EMBED: tokens}, targets), f"what lived in {where}", density)


def _with_tokens(shape: Shape, sources: Mapping[str, int], targets: Mapping[str, int]) -> Live:
    """Every token is taken to occur: in large data nearly all of them do."""
    return Live({**sources, EMBED: shape.topology.vocab_size}, targets)
