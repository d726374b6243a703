"""Questions to a stored harvest.

Values are normalised as `raw / source / target`: the source's summed causal importance (for a token, its occurrences)
and the target's root mean square (component activation or logit), as in goodfire-ai/spd. An attribution to an output
token is the product of its unembedding column with the attributions to the residual stream, which is exact.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.errors import ConfigurationError, EdgeNotFoundError, StorageError
from lit_attr.storage.content import Content
from lit_attr.topology.address import EMBED, OUTPUT, ComponentKey

AttrMetric = Literal["attr", "attr_abs"]
Sign = Literal["positive", "negative"]

METRICS: tuple[AttrMetric, ...] = ("attr", "attr_abs")
SIGNS: tuple[Sign, ...] = ("positive", "negative")

# Smaller denominators are raised to this.
_EPS = 1e-10


@dataclass(frozen=True)
class DatasetAttributionEntry:
    """One source or target of a component.

    Attributes:
        component_key: `<layer>:<component_idx>`.
        layer: Canonical address.
        component_idx: Component index, or token id.
        value: Normalised attribution.
    """

    component_key: str
    layer: str
    component_idx: int
    value: float


Segments = list[tuple[str, Float[Tensor, " _entry"]]]


class Query:
    """Questions to one content.

    Args:
        content: What was harvested.
    """

    def __init__(self, content: Content) -> None:
        self.content = content

    def size(self, layer: str) -> int:
        """Number of components of a layer, or of token ids; 0 for an unknown layer."""
        if layer in (EMBED, OUTPUT):
            return len(self.content.embed_token_count)
        return len(self.content.ci_sum.get(layer, ()))

    def has_source(self, key: ComponentKey) -> bool:
        """Whether the key is a source of any edge."""
        content = self.content
        is_source = key.layer in (EMBED, *content.unembed_attr) or any(
            key.layer in by_source for by_source in content.regular_attr.values()
        )
        return is_source and key.index < self.size(key.layer)

    def has_target(self, key: ComponentKey) -> bool:
        """Whether the key is a target of any edge."""
        content = self.content
        is_target = key.layer == OUTPUT or key.layer in content.regular_attr or key.layer in content.embed_attr
        return is_target and key.index < self.size(key.layer)

    def sources(self, target: ComponentKey, metric: AttrMetric) -> Segments:
        """Normalised attributions from every possible source, layer by layer; empty for what nothing feeds."""
        if not self.has_target(target):
            return []
        scale = self._target_scale(target.layer)[target.index]
        return [(layer, raw / self._source_scale(layer) / scale) for layer, raw in self._raw_sources(target, metric)]

    def targets(self, source: ComponentKey, metric: AttrMetric, include_outputs: bool) -> Segments:
        """Normalised attributions to every possible target, layer by layer; empty for what feeds nothing."""
        if not self.has_source(source):
            return []
        scale = self._source_scale(source.layer)[source.index]
        return [
            (layer, raw / scale / self._target_scale(layer))
            for layer, raw in self._raw_targets(source, metric, include_outputs)
        ]

    def edge(self, source: ComponentKey, target: ComponentKey, metric: AttrMetric, normalized: bool) -> float:
        """The attribution of one edge.

        Raises:
            EdgeNotFoundError: If there is no such edge.
        """
        by_layer = dict(self._raw_sources(target, metric)) if self.has_target(target) else {}
        if not self.has_source(source) or source.layer not in by_layer:
            raise EdgeNotFoundError(
                f"no {metric} edge from {source} to {target}; {self._why_not(source, target, metric, by_layer)}"
            )
        value = by_layer[source.layer][source.index]
        if normalized:
            value = value / self._source_scale(source.layer)[source.index]
            value = value / self._target_scale(target.layer)[target.index]
        return float(value)

    def _why_not(self, source: ComponentKey, target: ComponentKey, metric: AttrMetric, by_layer: dict) -> str:
        if not self.has_source(source):
            return self.why_unknown(source, "source")
        if not self.has_target(target):
            return self.why_unknown(target, "target")
        if target.layer == OUTPUT and metric == "attr_abs":
            return "attributions to the output have no attr_abs"
        return f"layers that feed {target.layer}: {', '.join(by_layer)}"

    def was_harvested(self, target: ComponentKey) -> bool:
        """Whether the component was a target of the harvest; its row is zero if not."""
        not_targets = (self.content.provenance or {}).get("not_targets", {})
        return target.index not in not_targets.get(target.layer, ())

    def why_unknown(self, key: ComponentKey, role: Literal["source", "target"]) -> str:
        """Why a key is not a source, or not a target, in words."""
        if key.layer == EMBED and role == "target":
            return "nothing feeds the embedding"
        if key.layer == OUTPUT and role == "source":
            return "the output feeds nothing"
        if size := self.size(key.layer):
            if key.index >= size:
                kind = "token ids" if key.layer in (EMBED, OUTPUT) else "components"
                return f"{key.layer} has {size} {kind} (0 to {size - 1})"
            return f"{key.layer} is no {role} of any edge"
        layers = [EMBED, *self.content.ci_sum, OUTPUT]
        return f"unknown layer {key.layer!r}; layers are: {', '.join(layers)}"

    def _raw_sources(self, target: ComponentKey, metric: AttrMetric) -> Segments:
        content, row = self.content, target.index
        if target.layer == OUTPUT:
            if metric == "attr_abs":
                return []
            direction = content.w_unembed[:, row]
            blocks = [*content.unembed_attr.items(), (EMBED, content.embed_unembed_attr)]
            return [(layer, direction.to(block.dtype) @ block) for layer, block in blocks]
        regular, embed = self._by_metric(metric)
        segments = [(layer, block[row]) for layer, block in regular.get(target.layer, {}).items()]
        if target.layer in embed:
            segments.append((EMBED, embed[target.layer][row]))
        return segments

    def _raw_targets(self, source: ComponentKey, metric: AttrMetric, include_outputs: bool) -> Segments:
        content, column = self.content, source.index
        regular, embed = self._by_metric(metric)
        if source.layer == EMBED:
            segments = [(layer, block[:, column]) for layer, block in embed.items()]
            to_residual: Tensor | None = content.embed_unembed_attr
        else:
            segments = [
                (layer, by_source[source.layer][:, column])
                for layer, by_source in regular.items()
                if source.layer in by_source
            ]
            to_residual = content.unembed_attr.get(source.layer)
        if include_outputs and metric == "attr" and to_residual is not None:
            segments.append((OUTPUT, to_residual[:, column] @ content.w_unembed.to(to_residual.dtype)))
        return segments

    def _by_metric(self, metric: AttrMetric) -> tuple:
        if metric not in METRICS:
            raise ConfigurationError(f"metric must be one of {list(METRICS)}, found {metric!r}")
        content = self.content
        if metric == "attr":
            return content.regular_attr, content.embed_attr
        return content.regular_attr_abs, content.embed_attr_abs

    def _source_scale(self, layer: str) -> Float[Tensor, " component"]:
        raw = self.content.embed_token_count.float() if layer == EMBED else self.content.ci_sum[layer]
        return raw.clamp(min=_EPS)

    def _target_scale(self, layer: str) -> Float[Tensor, " component"]:
        content = self.content
        squares = content.logit_sq_sum if layer == OUTPUT else content.component_act_sq_sum[layer]
        return (squares / max(content.n_tokens_processed, 1)).sqrt().clamp(min=_EPS)


def strongest(segments: Segments, k: int, sign: Sign) -> list[DatasetAttributionEntry]:
    """The entries with the largest positive, or the smallest negative, values; best first.

    Args:
        segments: Layers with a value for each of their entries.
        k: How many at most; fewer come back where fewer have the sign.
        sign: Which end.

    Raises:
        ConfigurationError: If `k` is not positive or the sign is unknown.
        StorageError: If a value is not finite.
    """
    if sign not in SIGNS:
        raise ConfigurationError(f"sign must be one of {list(SIGNS)}, found {sign!r}")
    if k < 1:
        raise ConfigurationError(f"k must be at least 1, found {k}")
    if not segments:
        return []
    positive = sign == "positive"
    values = torch.cat([segment for _, segment in segments])
    if not values.isfinite().all():
        raise StorageError("the stored sums are not finite here: the file is damaged, or the harvest was")
    top = values.topk(min(k, len(values)), largest=positive)
    starts = torch.tensor([0, *(len(segment) for _, segment in segments)]).cumsum(0)
    entries = []
    for value, position in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        if not (value > 0 if positive else value < 0):
            break
        place = int(torch.searchsorted(starts, position, right=True)) - 1
        layer, index = segments[place][0], position - int(starts[place])
        entries.append(DatasetAttributionEntry(str(ComponentKey(layer, index)), layer, index, value))
    return entries
