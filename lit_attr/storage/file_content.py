"""The content of a result's file: thirteen keys, as goodfire-ai/spd writes them, and up to four of our own."""

import sys
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lit_attr.errors import ConfigurationError, NotHeldError, StorageError, few
from lit_attr.errors import shown as short
from lit_attr.storage.batch_coverage import damaged
from lit_attr.storage.harvested_metrics import Sample
from lit_attr.storage.live import Live, members
from lit_attr.storage.provenance import Provenance
from lit_attr.storage.rounding import Rounding
from lit_attr.storage.standard_errors import StandardErrors
from lit_attr.topology.address import EMBED, OUTPUT
from lit_attr.topology.choice import check_metric
from lit_attr.topology.live import LiveSet
from lit_attr.topology.words import METRICS, AttrMetric, ErrorBasis

_SHOWN = 5
_LONGEST_NAME = 200
_MOST_TOKENS = 1 << 63  # what the counts of tokens, int64, add up to
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# How many mappings are around the tensors of a key, and how many axes the tensors have.
_SHAPES = {
    **{"regular_attr": (2, 2), "regular_attr_abs": (2, 2)},
    **{"embed_attr": (1, 2), "embed_attr_abs": (1, 2), "unembed_attr": (1, 2)},
    **{"embed_unembed_attr": (0, 2), "w_unembed": (0, 2)},
    **{"ci_sum": (1, 1), "component_act_sq_sum": (1, 1)},
    **{"logit_sq_sum": (0, 1), "embed_token_count": (0, 1)},
}
# Keys that other tools do not write.
_OPTIONAL = "provenance", "live", "standard_errors", "rounding"
# The sums of edges, and the unembedding that those of output tokens are multiplied with.
EDGES = tuple(name for name, (_, n_axes) in _SHAPES.items() if n_axes == 2)


@dataclass(frozen=True, eq=False)
class Content:
    """Raw sums over tokens, and what they are divided by; layers are canonical addresses.

    In the dense form, tensors of edges have a place for every component and token id. In the compact form they have
    places for some, which `live` lists; all other tensors are the same. Where a file holds the strongest edges alone,
    the tensors of edges and the unembedding are on the meta device: they have shapes, and no numbers.

    Attributes:
        regular_attr: Target layer to source layer to sums; empty for a target that the embedding alone feeds.
        regular_attr_abs: The sums of the metric `attr_abs`, nested as `regular_attr`; empty where this metric was not
            harvested, as `embed_attr_abs` is then.
        embed_attr: Target layer to sums by token, for targets that the embedding feeds.
        embed_attr_abs: The sums of the metric `attr_abs`, nested as `embed_attr`.
        unembed_attr: Source layer to sums by dimension of the residual stream that the unembedding reads.
        embed_unembed_attr: Sums by residual dimension and token.
        w_unembed: The unembedding.
        ci_sum: Layer to sums of causal importances.
        component_act_sq_sum: Layer to sums of squared component activations; zero for layers that are no targets.
        logit_sq_sum: Sums of squared logits.
        embed_token_count: Occurrences of each token id.
        ci_threshold: Mean causal importance above which a component was counted alive, where that was asked for.
        n_tokens_processed: Number of tokens.
        provenance: Where the numbers come from, in plain types; None in files of other tools.
        live: The sources and targets that have a place in the tensors of edges; None in the dense form.
        standard_errors: How far the sums of edges would move on other data; None where that was not harvested.
        rounding: How far sums of edges are from those in float32, if they were rounded to bfloat16, whatever their type
            is now; None where they were not.

    Raises:
        StorageError: If nesting, shapes, live sources and targets, and standard errors do not belong together.
    """

    regular_attr: Mapping[str, Mapping[str, Float[Tensor, "_target _source"]]]
    regular_attr_abs: Mapping[str, Mapping[str, Float[Tensor, "_target _source"]]]
    embed_attr: Mapping[str, Float[Tensor, "_target vocab"]]
    embed_attr_abs: Mapping[str, Float[Tensor, "_target vocab"]]
    unembed_attr: Mapping[str, Float[Tensor, "d_model _source"]]
    embed_unembed_attr: Float[Tensor, "d_model vocab"]
    w_unembed: Float[Tensor, "d_model vocab"]
    ci_sum: Mapping[str, Float[Tensor, " _component"]]
    component_act_sq_sum: Mapping[str, Float[Tensor, " _component"]]
    logit_sq_sum: Float[Tensor, " vocab"]
    embed_token_count: Int[Tensor, " vocab"]
    ci_threshold: float
    n_tokens_processed: int
    provenance: Mapping[str, Any] | None = None
    live: Live | None = None
    standard_errors: StandardErrors | None = None
    rounding: Rounding | None = None

    def layer_size(self, layer: str) -> int:
        """Number of all components of a layer, or of token ids, stored or not; 0 for an unknown layer."""
        if layer in (EMBED, OUTPUT):
            return len(self.embed_token_count)
        return len(self.ci_sum.get(layer, ()))

    def stored_sources(self, layer: str) -> LiveSet:
        """Which components of a layer, or token ids of the embedding, have a column in tensors of edges."""
        return members(self.live, "sources", layer, self.layer_size(layer))

    def stored_targets(self, layer: str) -> LiveSet:
        """Which components of a layer have a row in tensors of edges; of the output, all tokens."""
        return members(self.live, "targets", layer, self.layer_size(layer))

    @property
    def metrics(self) -> tuple[AttrMetric, ...]:
        """The metrics that were harvested: `attr` alone where edges into components have no sums of `attr_abs`."""
        has_abs = self.regular_attr_abs or self.embed_attr_abs
        return METRICS if has_abs or not (self.regular_attr or self.embed_attr) else ("attr",)

    @property
    def holds_edges(self) -> bool:
        """Whether the sums of all edges are here, and not only their shapes."""
        return not self.w_unembed.is_meta

    def check_holds_edges(self) -> None:
        """Refuse to do without the sums of all edges.

        Raises:
            NotHeldError: If only their shapes are here.
        """
        if not self.holds_edges:
            raise NotHeldError(
                "this result holds its strongest edges alone, and not the sums of all edges, which are needed here: "
                "take the result that it was made from"
            )

    def check_harvested(self, metric: AttrMetric) -> None:
        """Refuse a metric that does not exist, or was not harvested.

        Raises:
            ConfigurationError: If it is one of these.
        """
        check_metric(metric)
        if metric not in self.metrics:
            raise ConfigurationError(self.recorded.harvested_metrics.why_no_abs)

    def sample(self, metric: AttrMetric) -> Sample | None:
        """The part of the data from which the sums of a metric are estimated; None if they are of all of it.

        Raises:
            ConfigurationError: If the metric does not exist, or was not harvested.
            StorageError: If what the provenance says of it is damaged, or is not true of the sums.
        """
        self.check_harvested(metric)
        if metric == "attr" or not (self.regular_attr_abs or self.embed_attr_abs):
            return None
        known = self.recorded.harvested_metrics
        if known.metrics == "attr":
            raise damaged("metrics", "both, since there are sums of attr_abs", known.metrics)
        if known.n_abs_tokens is None:
            return None
        if not 0 < known.n_abs_tokens <= self.n_tokens_processed:
            raise damaged("n_abs_tokens", f"a number from 1 to {self.n_tokens_processed}", known.n_abs_tokens)
        return Sample(known.abs_share, known.n_abs_tokens, self.n_tokens_processed)

    @property
    def error_basis(self) -> ErrorBasis:
        """What the standard errors say; rows of results that record no order came in that of their file."""
        if self.standard_errors is None:
            return "not harvested"
        return "random order" if self.recorded.order == "random" else "file order"

    @property
    def recorded(self) -> Provenance:
        """The provenance by its entries; all of them None where there is none."""
        return Provenance.from_mapping(self.provenance)

    def named_sums(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors that add up over tokens, with unique names, in the file's order."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in ("w_unembed", *_OPTIONAL):
                yield from _flatten(field.name, value)

    @property
    def dense_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes that all tensors which add up have in the dense form, by name."""
        return self._shapes(None)

    def _shapes(self, live: Live | None) -> dict[str, tuple[int, ...]]:
        """The shapes that all tensors which add up should have, by name."""
        d_model, vocab = self.w_unembed.shape
        n_all = {layer: len(values) for layer, values in self.ci_sum.items()} | {EMBED: vocab}
        n_sources, n_targets = (
            n_all | {layer: len(ids) for layer, ids in by_layer.items()}
            for by_layer in ((live.sources, live.targets) if live else ({}, {}))
        )
        expected: dict[str, tuple[int, ...]] = {}
        for name, nested in (("regular_attr", self.regular_attr), ("regular_attr_abs", self.regular_attr_abs)):
            for target, by_source in nested.items():
                for source in by_source:
                    expected[f"{name}[{target}][{source}]"] = (n_targets.get(target, -1), n_sources.get(source, -1))
        for name, by_target in (("embed_attr", self.embed_attr), ("embed_attr_abs", self.embed_attr_abs)):
            expected |= {f"{name}[{target}]": (n_targets.get(target, -1), n_sources[EMBED]) for target in by_target}
        expected |= {f"unembed_attr[{source}]": (d_model, n_sources.get(source, -1)) for source in self.unembed_attr}
        expected |= {"embed_unembed_attr": (d_model, n_sources[EMBED])}
        for name in ("ci_sum", "component_act_sq_sum"):
            expected |= {f"{name}[{layer}]": (n_all[layer],) for layer in self.ci_sum}
        return expected | {"logit_sq_sum": (vocab,), "embed_token_count": (vocab,)}

    def __post_init__(self) -> None:
        """Check that nesting, shapes and live sources and targets belong together."""
        if odd := [layer for layer in self.ci_sum if not 0 < len(layer) <= _LONGEST_NAME]:
            raise StorageError(f"expected names of layers, found {short(odd[0])}")
        if reserved := {EMBED, OUTPUT} & self.ci_sum.keys():
            raise StorageError(f"{sorted(reserved)} cannot be decomposed layers")
        if self.live is not None:
            self._check_live(self.live)
        expected = self._shapes(self.live)
        shapes = {name: tuple(tensor.shape) for name, tensor in self.named_sums()}
        if problems := [
            f"{name}: expected {expected.get(name, 'nothing')}, found {shapes.get(name, 'nothing')}"
            for name in expected | shapes
            if expected.get(name) != shapes.get(name)
        ]:
            shown = "; ".join(problems[:_SHOWN])
            raise StorageError(f"shapes do not belong together ({len(problems)} problems): {shown}")
        if self.standard_errors is not None:
            n_all = {layer: self.layer_size(layer) for layer in (EMBED, *self.ci_sum)}
            self.standard_errors.check(shapes, n_all)
        unpaired = {*_edges(self.regular_attr, self.embed_attr)} ^ {*_edges(self.regular_attr_abs, self.embed_attr_abs)}
        if unpaired and (self.regular_attr_abs or self.embed_attr_abs):
            raise StorageError(
                f"edges with only one of attr and attr_abs: {few(sorted(unpaired))}; expected attr_abs of all edges, "
                "or of none"
            )
        for layer, ids in (self.live.sources if self.live else {}).items():
            weights = self.embed_token_count if layer == EMBED else self.ci_sum[layer]
            if n_left_out := int(weights.count_nonzero() - weights[ids].count_nonzero()):
                raise StorageError(
                    f"live sources of {layer}: expected all that occur in the data, {n_left_out:,} of them are missing"
                )

    def _check_live(self, live: Live) -> None:
        """Check the live sources and targets by themselves."""
        regular = (*self.regular_attr.values(), *self.regular_attr_abs.values())
        sources = {EMBED, *self.unembed_attr, *(source for by_source in regular for source in by_source)}
        n_all = {layer: self.layer_size(layer) for layer in (EMBED, *self.ci_sum)}
        live.check(n_all, sources, {*self.regular_attr, *self.embed_attr})


def _edges(regular: Mapping[str, Mapping[str, Tensor]], embed: Mapping[str, Tensor]) -> Iterator[str]:
    for target, by_source in regular.items():
        yield target
        yield from (f"{source}->{target}" for source in by_source)
    yield from (f"{EMBED}->{target}" for target in embed)


def _flatten(name: str, value: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(f"{name}[{key}]", inner)


def checked_keys(raw: object) -> dict[str, Any]:
    """The keys of a loaded file, as arguments of `Content`.

    Args:
        raw: What the file holds.

    Raises:
        StorageError: If it is not the result of a harvest.
    """
    names = [field.name for field in fields(Content)]
    required = [name for name in names if name not in _OPTIONAL]
    if not isinstance(raw, Mapping):
        raise StorageError(
            f"not the result of a harvest: expected a mapping with keys {required}, found {type(raw).__name__}"
        )
    missing, unknown = [n for n in required if n not in raw], sorted(map(short, raw.keys() - set(names)))
    if missing or unknown:
        raise StorageError(f"not the result of a harvest: missing keys {missing}, unknown keys [{few(unknown)}]")
    wrong = [name for name in required if not _has_kind(name, raw[name])]
    if not isinstance(raw.get("provenance", None), Mapping | None):
        wrong.append("provenance")
    if wrong:
        raise StorageError(f"not the result of a harvest: of a wrong type are {wrong}")
    read: dict[str, Callable[[object], Any]] = {
        **{"live": Live.from_entry, "standard_errors": StandardErrors.from_entry, "rounding": Rounding.from_entry}
    }
    return {name: read[name](value) if name in read else value for name, value in raw.items()}


def _has_kind(name: str, value: object) -> bool:
    if name == "n_tokens_processed":
        return type(value) is int and 0 <= value < _MOST_TOKENS
    if name == "ci_threshold":
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    nesting, n_axes = _SHAPES[name]

    def fits(value: object, depth: int) -> bool:
        if depth == 0:
            is_count = name == "embed_token_count"
            return (
                isinstance(value, Tensor)
                and value.ndim == n_axes
                and (value.dtype == torch.int64 if is_count else value.dtype in _FLOATS)
            )
        return isinstance(value, Mapping) and all(isinstance(k, str) and fits(v, depth - 1) for k, v in value.items())

    return fits(value, nesting)


def file_keys(content: Content, without: Container[str] = ()) -> dict[str, Any]:
    """What a content is in a file, key by key, with the tensors as they are; keys without a value are left out.

    That of rounding comes last, behind the numbers that it is of.

    Args:
        content: What was harvested.
        without: Other keys that are left out.
    """
    keys = {field.name: getattr(content, field.name) for field in fields(Content) if field.name not in without}
    own = {name: keys.pop(name, None) for name in ("live", "standard_errors", "rounding")}
    return {**keys, **{name: value.to_entry() for name, value in own.items() if value is not None}}


def to_file(content: Content, without: Container[str] = ()) -> dict[str, Any]:
    """What a file holds: plain dictionaries, contiguous float32 sums and int64 counts on the CPU.

    Sums that were rounded stay in bfloat16 in the compact form.

    Args:
        content: What was harvested.
        without: Keys that are left out.
    """
    is_rounded = content.rounding is not None and content.live is not None
    half = torch.bfloat16 if is_rounded else torch.float32
    return {
        name: value.detach().cpu()
        if name == "w_unembed"
        else value
        if name == "standard_errors"
        else _plain(value, half)
        for name, value in file_keys(content, without).items()
    }


def _plain(value: Any, half: torch.dtype) -> Any:  # noqa: ANN401 - whatever the content holds
    if isinstance(value, Tensor):
        of_half = half if value.dtype == torch.bfloat16 else torch.float32
        dtype = of_half if value.is_floating_point() else value.dtype
        return value.detach().to("cpu", dtype).contiguous()
    if isinstance(value, Mapping):
        return {key: _plain(inner, half) for key, inner in value.items()}
    return value
