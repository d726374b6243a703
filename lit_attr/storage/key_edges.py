"""Questions to a result: sources, targets and edges of keys, as vectors and numbers."""

from collections.abc import Container
from typing import Literal

import torch
from torch import Tensor

from lit_attr.errors import EdgeNotFoundError
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.file_content import Content
from lit_attr.storage.harvested_targets import HarvestedTargets
from lit_attr.storage.top_k import Segment, check_finite
from lit_attr.topology.address import EMBED, OUTPUT, ComponentKey, in_order
from lit_attr.topology.choice import Measure
from lit_attr.topology.words import AttrMetric

_NORMALIZED = Measure()


class KeyEdges:
    """Questions to one content.

    Whatever is asked for a metric raises a `ConfigurationError` if it was not harvested.

    Args:
        content: What was harvested.
    """

    def __init__(self, content: Content) -> None:
        self.content = content
        self.blocks = Blocks(content)
        self.harvested = HarvestedTargets(content)

    def has_source(self, key: ComponentKey) -> bool:
        """Whether the key is a source of any edge."""
        content = self.content
        is_source = key.layer in (EMBED, *content.unembed_attr) or any(
            key.layer in by_source for by_source in content.regular_attr.values()
        )
        return is_source and key.index < content.layer_size(key.layer)

    def has_target(self, key: ComponentKey) -> bool:
        """Whether the key is a target of any edge."""
        content = self.content
        is_target = key.layer == OUTPUT or key.layer in content.regular_attr or key.layer in content.embed_attr
        return is_target and key.index < content.layer_size(key.layer)

    def sources(
        self, target: ComponentKey, measure: Measure = _NORMALIZED, layers: Container[str] | None = None
    ) -> list[Segment]:
        """Attributions from every source that has a place, layer by layer; those from all others are 0.

        They are none for what nothing feeds, and for a component that was no target of the harvest: its sources were
        not measured.

        Args:
            target: What is fed.
            measure: Which numbers.
            layers: Layers to look at; all if None.
        """
        content, blocks = self.content, self.blocks
        content.check_harvested(measure.metric)
        was_target = self.has_target(target) and self.harvested.include(target)
        place = content.stored_targets(target.layer).place(target.index) if was_target else None
        if place is None:
            return []
        wanted = [s for s in blocks.source_layers(target.layer, measure.metric) if layers is None or s in layers]
        return [Segment(s, content.stored_sources(s), blocks.row(s, target.layer, measure, place)) for s in wanted]

    def targets(
        self, source: ComponentKey, measure: Measure = _NORMALIZED, layers: Container[str] | None = None
    ) -> list[Segment]:
        """Attributions to every target that has a place, layer by layer; none for what feeds nothing.

        Those to components that were no targets of the harvest are 0 where they have a place: `harvested` says which.
        A source without a place has segments of zeros.

        Args:
            source: What feeds.
            measure: Which numbers.
            layers: Layers to look at; all if None.
        """
        content, blocks = self.content, self.blocks
        content.check_harvested(measure.metric)
        if not self.has_source(source):
            return []
        place = content.stored_sources(source.layer).place(source.index)
        wanted = [t for t in blocks.target_layers(source.layer, measure.metric) if layers is None or t in layers]

        def values(target: str) -> Tensor:
            if place is None:
                return torch.zeros(len(content.stored_targets(target)))
            return blocks.column(source.layer, target, measure, place)

        return [Segment(target, content.stored_targets(target), values(target)) for target in wanted]

    def edge(self, source: ComponentKey, target: ComponentKey, measure: Measure) -> float | None:
        """The attribution of one edge; None if its target was no target of the harvest, so that it was not measured.

        Raises:
            EdgeNotFoundError: If there is no such edge.
            StorageError: If its value is not finite.
        """
        was_measured = self.was_measured(source, target, measure.metric)
        of_source = self.content.stored_sources(source.layer).place(source.index)
        of_target = self.content.stored_targets(target.layer).place(target.index)
        if not was_measured or of_target is None:
            return None
        if of_source is None:
            return 0.0
        one = slice(of_source, of_source + 1), slice(of_target, of_target + 1)
        value = self.blocks.tile(source.layer, target.layer, measure, *one)[0, 0]
        check_finite(value, f"{source} to {target}")
        return float(value) + 0.0  # zero has no sign, whoever stored it

    def was_measured(self, source: ComponentKey, target: ComponentKey, metric: AttrMetric) -> bool:
        """Whether an edge was measured: whether its target was a target of the harvest.

        Raises:
            EdgeNotFoundError: If there is no such edge.
        """
        self.content.check_harvested(metric)
        layers = self.blocks.source_layers(target.layer, metric) if self.has_target(target) else []
        if not self.has_source(source) or source.layer not in layers:
            raise EdgeNotFoundError(
                f"no {metric} edge from {source} to {target}; {self._why_not(source, target, metric)}"
            )
        return self.harvested.include(target)

    def _why_not(self, source: ComponentKey, target: ComponentKey, metric: AttrMetric) -> str:
        if not self.has_source(source):
            return self.why_unknown(source, "source")
        if not self.has_target(target):
            return self.why_unknown(target, "target")
        return self.why_no_edges(target.layer, metric)

    def why_no_edges(self, target_layer: str, metric: AttrMetric) -> str:
        """Why a layer is not among those that feed another, in words."""
        if target_layer == OUTPUT and metric == "attr_abs":
            return "attributions to the output have no attr_abs"
        layers = in_order(self.blocks.source_layers(target_layer, metric))
        return f"layers that feed {target_layer}: {', '.join(layers) or 'none'}"

    def why_unknown(self, key: ComponentKey, role: Literal["source", "target"]) -> str:
        """Why a key is not a source, or not a target, in words."""
        if key.layer == EMBED and role == "target":
            return "nothing feeds the embedding"
        if key.layer == OUTPUT and role == "source":
            return "the output feeds nothing"
        if size := self.content.layer_size(key.layer):
            if key.index >= size:
                kind = "token ids" if key.layer in (EMBED, OUTPUT) else "components"
                return f"{key.layer} has {size} {kind} (0 to {size - 1})"
            return f"{key.layer} is no {role} of any edge"
        layers = in_order([EMBED, *self.content.ci_sum, OUTPUT])
        return f"unknown layer {key.layer!r}; layers are: {', '.join(layers)}"
