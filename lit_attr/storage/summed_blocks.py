"""The blocks of a result that is not written: sums of parts, finished tile by tile when they are asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import BFloat16, Float
from torch import Tensor

from lit_attr.errors import ConfigurationError
from lit_attr.storage.blocks import Blocks
from lit_attr.storage.file_content import EDGES, Content
from lit_attr.storage.live import Live
from lit_attr.storage.normalisation import Places
from lit_attr.storage.result_errors import errors_without_numbers, summed_errors
from lit_attr.storage.standard_errors import WHY_NO_ERRORS
from lit_attr.storage.summed import (
    Summed,
    SummedEdges,
    is_finite,
    live_sources,
    live_targets,
    map_nested,
    measured,
    not_finite,
    summed_tensors,
    whole,
)
from lit_attr.topology.address import EMBED
from lit_attr.topology.read_vectors import ReadVectors
from lit_attr.topology.sums import Sums
from lit_attr.topology.words import AttrMetric

_ALL = slice(None)


class SummedBlocks(Blocks):
    """Blocks of the sum of some parts, in the places of the compact form; numbers are those that a result would have.

    Whatever is asked for sums that are not finite, or too large for float32, raises a `NumericalError` that names the
    part. The content has normalisers and the unembedding. Its sums of edges are on the meta device: they have shapes
    alone.

    Args:
        parts: Sums of one harvest by name, in memory or mapped; at least one.
        read: The model's read vectors.
        w_unembed: The unembedding.
        ci_threshold: The threshold to be recorded.
        provenance: What is to be recorded; plain types.
        normalising: Names of the parts whose normalisers count; all by default.

    Raises:
        NumericalError: If a normaliser is not finite, or too large for float32.
    """

    def __init__(
        self,
        parts: Mapping[str, Sums],
        read: ReadVectors,
        w_unembed: Float[Tensor, "d_model vocab"],
        ci_threshold: float,
        provenance: Mapping[str, Any],
        normalising: Sequence[str] | None = None,
    ) -> None:
        normalising = list(parts) if normalising is None else normalising
        parts = measured(parts, normalising)
        w_unembed = w_unembed.detach().cpu()
        self._summed = summed_tensors(parts, normalising, read, len(w_unembed), is_dense=False)
        self._summed_errors = summed_errors(parts, normalising, self._summed)
        shapes = {name: nested for name, nested in self._summed.items() if name in EDGES}
        sums = {name: nested for name, nested in self._summed.items() if name not in EDGES}
        content = Content(
            **map_nested(shapes, _without_numbers),
            **{name: _rounded(name, nested) for name, nested in sums.items()},
            w_unembed=w_unembed,
            ci_threshold=ci_threshold,
            n_tokens_processed=sum(int(parts[name].n_tokens) for name in normalising),
            provenance=provenance,
            live=Live(live_sources(parts.values()), live_targets(parts.values(), read)),
            standard_errors=None if self._summed_errors is None else errors_without_numbers(self._summed_errors),
        )
        super().__init__(content)

    def _part(
        self, source: str, target: str, metric: AttrMetric, targets: Places, sources: Places
    ) -> Float[Tensor, "..."]:
        self.content.check_harvested(metric)
        if source == EMBED:
            return _at(f"embed_{metric}[{target}]", self._summed[f"embed_{metric}"][target], targets, sources)
        edges = self._summed[f"regular_{metric}"][target][source]
        return _at(f"regular_{metric}[{target}][{source}]", edges, targets, sources)

    def errors(
        self, source: str, target: str, metric: AttrMetric, targets: Places, sources: Places
    ) -> BFloat16[Tensor, "..."]:
        """Standard errors as a result would store them; arguments as of other blocks."""
        kind = "embed" if source == EMBED else "regular"
        of_target = self._of_errors(f"{kind}_{metric}")[target]
        edges = of_target if source == EMBED else of_target[source]
        if isinstance(targets, Tensor) and isinstance(sources, Tensor):
            return edges.at(targets, sources).bfloat16()
        return edges.part(*_slices(targets, sources)).bfloat16()

    def error_vectors(self, source: str, sources: Places) -> BFloat16[Tensor, "source block_x_d_model"]:
        """Vectors of standard errors as a result would store them."""
        if source == EMBED:
            return self._of_errors("embed_unembed_attr").rows(sources).bfloat16()
        return self._of_errors("unembed_attr")[source].rows(sources).bfloat16()

    def _of_errors(self, name: str) -> Any:  # noqa: ANN401 - standard errors of some edges, or a mapping of such
        if self._summed_errors is None:
            raise ConfigurationError(WHY_NO_ERRORS)
        return self._summed_errors[name]

    def _to_residual(self, source: str, sources: Places) -> Float[Tensor, "..."]:
        if source == EMBED:
            return _at("embed_unembed_attr", self._summed["embed_unembed_attr"], _ALL, sources)
        return _at(f"unembed_attr[{source}]", self._summed["unembed_attr"][source], _ALL, sources)


def _at(name: str, edges: SummedEdges, targets: Places, sources: Places) -> Float[Tensor, "..."]:
    """Some edges, rounded as in a file; without the axes of which one place is meant."""
    part = edges.part(*_slices(targets, sources)).float()
    if not is_finite(part):
        raise not_finite(name, edges)
    return part[tuple(0 if isinstance(place, int) else _ALL for place in (targets, sources))]


def _slices(*places: Places) -> list[Any]:
    """Places with an axis, where one may be meant."""
    return [slice(place, place + 1) if isinstance(place, int) else place for place in places]


def _without_numbers(summed: Summed) -> Tensor:
    return torch.empty(summed.shape, dtype=torch.float32, device="meta")


def _rounded(name: str, summed: Any) -> Any:  # noqa: ANN401 - a normaliser, or a mapping of such
    """Normalisers as a file has them."""
    if isinstance(summed, Mapping):
        return {key: _rounded(f"{name}[{key}]", inner) for key, inner in summed.items()}
    tensor = whole(summed)
    tensor = tensor.float() if tensor.is_floating_point() else tensor
    if not is_finite(tensor):
        raise not_finite(name, summed)
    return tensor
