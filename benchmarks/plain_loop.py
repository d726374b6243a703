"""The plain loop: one backward pass for each target and metric, as goodfire-ai/spd runs it.

The engines are measured against it. It is the definition of the attributions (see `lit_attr.attribution.autograd`) as a
loop over targets, and stands on nothing of lit_attr but the component forward: its cost stays when engines change.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.decomposition.model import Capture
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.graph import Topology
from lit_attr.topology.words import METRICS, AttrMetric


class PlainLoop:
    """The plain loop over one batch.

    Args:
        capture: The component forward, with its graph.
        topology: The attribution graph.
        ci: Layer to causal importances.
        metrics: Metrics that are computed; each takes passes of its own.
        most_targets: The first targets of each layer that are taken, at most so many; None takes all.

    Attributes:
        tables: Metric, target layer and source layer to sums, target by source, in the precision of the model. The
            targets of the output are the dimensions of the residual stream; they have no `attr_abs`. The sources of the
            embedding are token ids.
    """

    def __init__(
        self,
        capture: Capture,
        topology: Topology,
        ci: Mapping[str, Float[Tensor, "batch seq _"]],
        metrics: Sequence[AttrMetric] = METRICS,
        most_targets: int | None = None,
    ) -> None:
        self.topology = topology
        self._capture = capture
        self._most_targets = most_targets
        self._leaves = {EMBED: capture.embed, **capture.post}
        self._weights = {layer: post.detach() * ci[layer] for layer, post in capture.post.items()}
        self._weights[EMBED] = capture.embed.detach()
        self.tables: dict[AttrMetric, dict[str, dict[str, Tensor]]] = {
            metric: {
                target: {source: self._zeros(target, source) for source in sources}
                for target, sources in topology.sources.items()
                if metric == "attr" or target != OUTPUT
            }
            for metric in metrics
        }

    def _zeros(self, target: str, source: str) -> Tensor:
        n_sources = self.topology.vocab_size if source == EMBED else self.topology.n_components[source]
        return self._capture.embed.new_zeros(self.n_targets(target), n_sources)

    def n_targets(self, target: str) -> int:
        """Number of targets of a layer that are taken."""
        n_targets = self.topology.d_model if target == OUTPUT else self.topology.n_components[target]
        return n_targets if self._most_targets is None else min(n_targets, self._most_targets)

    def run(self) -> None:
        """Take all passes."""
        for metric, tables in self.tables.items():
            for target in tables:
                self.take_passes(metric, target, self.n_targets(target))

    def take_passes(self, metric: AttrMetric, target: str, n_targets: int) -> None:
        """Add the first targets of a layer to `tables`, one pass for each.

        Args:
            metric: One of those that are computed.
            target: Target layer; the output has the metric `attr` alone.
            n_targets: Number of its targets.
        """
        value = self._capture.residual if target == OUTPUT else self._capture.pre[target]
        total = (value.abs() if metric == "attr_abs" else value).sum((0, 1))
        tables = self.tables[metric][target]
        leaves = [self._leaves[source] for source in tables]
        for index in range(n_targets):
            gradients = torch.autograd.grad(total[index], leaves, retain_graph=True)
            for (source, table), gradient in zip(tables.items(), gradients, strict=True):
                weighted = gradient * self._weights[source]
                if source == EMBED:
                    table[index].index_add_(0, self._capture.tokens.flatten(), weighted.sum(-1).flatten())
                else:
                    table[index] += weighted.sum((0, 1))
