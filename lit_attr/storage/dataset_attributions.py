"""The stored result of a harvest: to be asked, saved, loaded and merged."""

import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lit_attr.errors import StorageError, naming, reason
from lit_attr.files.limits import check_content, check_plain, check_records
from lit_attr.files.publish import publish
from lit_attr.storage.compact import live_of, with_live
from lit_attr.storage.file_content import Content, checked_keys, to_file
from lit_attr.storage.key_edges import KeyEdges
from lit_attr.storage.live import Live
from lit_attr.storage.mergeable import check_mergeable
from lit_attr.storage.provenance import merged_provenance
from lit_attr.storage.strongest_file import StrongestFile, is_strongest
from lit_attr.storage.summed import map_nested, summed_tensors, whole
from lit_attr.storage.top_k import DatasetAttributionEntry, strongest
from lit_attr.topology.address import OUTPUT, ComponentKey
from lit_attr.topology.choice import Measure
from lit_attr.topology.read_vectors import ReadVectors
from lit_attr.topology.sums import Sums, add_chunked_
from lit_attr.topology.words import AttrMetric, Sign


@dataclass(frozen=True, eq=False)
class DatasetAttributionStorage(Content):
    """Attributions between components, summed over a dataset.

    The constructor takes the thirteen keys of the file, and `provenance`; for the compact form `live`, too, and
    `rounding` where sums were rounded; see `Content`. Names and results are those of the class of the same name in
    goodfire-ai/spd, so that code written for it works unchanged, with either form; beyond it, unknown keys are answered
    with an empty list, and `get_attribution` can normalise.

    Raises:
        StorageError: If shapes do not belong together.

    Example:
        >>> storage = DatasetAttributionStorage.load("dataset_attributions.pt")  # doctest: +SKIP
        >>> storage.get_top_sources("0.mlp.up:5", k=3, sign="positive")  # doctest: +SKIP
    """

    @property
    def target_layers(self) -> set[str]:
        """Layers of components that anything feeds."""
        return {*self.regular_attr, *self.embed_attr}

    @property
    def n_components(self) -> int:
        """Number of components in all target layers."""
        return sum(len(self.ci_sum[layer]) for layer in self.target_layers)

    def has_source(self, component_key: str) -> bool:
        """Whether the key is a source of any edge.

        Raises:
            KeyFormatError: If the key is malformed.
        """
        return KeyEdges(self).has_source(ComponentKey.parse(component_key))

    def has_target(self, component_key: str) -> bool:
        """Whether the key is a target of any edge.

        Raises:
            KeyFormatError: If the key is malformed.
        """
        return KeyEdges(self).has_target(ComponentKey.parse(component_key))

    def get_top_sources(
        self, target_key: str, k: int = 10, sign: Sign = "positive", metric: AttrMetric = "attr"
    ) -> list[DatasetAttributionEntry]:
        """What feeds a component or an output token most.

        Args:
            target_key: Such as `0.mlp.up:5` or `output:17`.
            k: How many at most.
            sign: `positive` or `negative`.
            metric: `attr`, or `attr_abs` for effects on the activation's magnitude; output tokens have only `attr`.

        Returns:
            Normalised values, best first; empty for an unknown layer or index, and for a component that was no target
            of the harvest.

        Raises:
            KeyFormatError: If the key is malformed.
            ConfigurationError: If an option is not understood, or the metric was not harvested.
        """
        return strongest(KeyEdges(self).sources(ComponentKey.parse(target_key), Measure(metric)), k, sign)

    def get_top_targets(
        self,
        source_key: str,
        k: int = 10,
        sign: Sign = "positive",
        metric: AttrMetric = "attr",
        include_outputs: bool = True,  # noqa: FBT001, FBT002 - goodfire-ai/spd's own signature
    ) -> list[DatasetAttributionEntry]:
        """What a component or a token feeds most.

        Args:
            source_key: Such as `0.mlp.up:5` or `embed:17`.
            k: How many at most.
            sign: `positive` or `negative`.
            metric: `attr`, or `attr_abs` for effects on activations' magnitudes, which output tokens do not have.
            include_outputs: Whether output tokens compete with components.

        Returns:
            Normalised values, best first; empty for an unknown layer or index.

        Raises:
            KeyFormatError: If the key is malformed.
            ConfigurationError: If an option is not understood, or the metric was not harvested.
        """
        query, source = KeyEdges(self), ComponentKey.parse(source_key)
        fed = query.blocks.target_layers(source.layer, metric)
        layers = [layer for layer in fed if include_outputs or layer != OUTPUT]
        return strongest(query.targets(source, Measure(metric), layers), k, sign)

    def get_attribution(
        self, source_key: str, target_key: str, *, normalized: bool = False, metric: AttrMetric = "attr"
    ) -> float:
        """The attribution of one edge.

        Args:
            source_key: Such as `embed:17`.
            target_key: Such as `0.mlp.up:5`.
            normalized: Divide by the scales of source and target; otherwise the raw sum.
            metric: `attr` or `attr_abs`.

        Returns:
            The attribution; not a number (NaN) if the target was no target of the harvest, so that no edge to it was
            measured. The provenance lists these components under `not_targets`.

        Raises:
            KeyFormatError: If a key is malformed.
            EdgeNotFoundError: If there is no such edge.
            ConfigurationError: If the metric is unknown, or was not harvested.
        """
        source, target = ComponentKey.parse(source_key), ComponentKey.parse(target_key)
        value = KeyEdges(self).edge(source, target, Measure(metric, normalized))
        return math.nan if value is None else value

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, in the form that the result has: whole or not at all.

        Raises:
            StorageError: If it cannot be written.
            NotHeldError: If the sums of edges are not held.
        """
        self.check_holds_edges()
        publish(Path(path), partial(torch.save, to_file(self)))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "DatasetAttributionStorage":
        """Open a file of either form, memory-mapped: tensors are read when they are asked for.

        A file of the strongest edges alone opens, too: with its normalisers and provenance, and without sums of edges.
        The `Explorer` answers from it.

        Raises:
            StorageError: If the file is missing, damaged, or something else.
        """
        path = Path(path)
        if not path.is_file():
            raise StorageError(f"no result at {path}")
        nbytes = path.stat().st_size
        if is_strongest(path):
            return cls(**StrongestFile(path).content_keys())
        if not _ends_as_archive(path):
            raise StorageError(
                f"cannot read {path}, which is truncated or no result of a harvest: the last of its "
                f"{nbytes:,} bytes are not those of a zip archive"
            )
        with naming(path):
            check_records(path, nbytes)
            try:
                raw = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except Exception as error:  # torch raises many kinds for a damaged file
                raise StorageError(
                    f"cannot read {path}, which may be truncated or no result of a harvest: {reason(error)}"
                ) from error
            check_content(raw, nbytes)
            content = cls(**checked_keys(raw))
        for tensor in (content.w_unembed, *(tensor for _, tensor in content.named_sums())):
            tensor.requires_grad_(False)  # noqa: FBT003 - torch's own
        return content

    @classmethod
    def merge(cls, paths: Sequence[str | os.PathLike[str]]) -> "DatasetAttributionStorage":
        """Add harvests of disjoint data of one model.

        All sums, counts and numbers of tokens are added, in float64; that is the token-weighted mean of per-token
        values. Sums of `attr_abs` from a share of the sequences are of all tokens already, and are added alike. Where
        one is in the compact form, so is their sum, with the live sources and targets of all. The sum has no standard
        errors: those of one harvest come from its parts, which `lit-attr merge` adds.

        Args:
            paths: Files, whatever their order.

        Raises:
            StorageError: If there are none, one is given twice, or one is damaged, rounded to bfloat16, or of another
                model, threshold, precision, set of metrics, share of the sequences or set of targets; or if one does
                not record its targets, and has sums of edges that another has not measured.
            NotHeldError: If one holds its strongest edges alone.
        """
        if not paths:
            raise StorageError("nothing to merge: no files given")
        resolved = [Path(path).resolve() for path in paths]
        if twice := sorted({str(path) for path in resolved if resolved.count(path) > 1}):
            raise StorageError(f"cannot merge a file with itself, its tokens would count twice: {', '.join(twice)}")
        parts = [cls.load(path) for path in paths]
        for path, part in zip(paths, parts, strict=True):
            with naming(path):
                part.check_holds_edges()
                check_plain(part.provenance, "the provenance")
        check_mergeable({str(path): part for path, part in zip(paths, parts, strict=True)})
        if any(part.live is not None for part in parts):
            live = Live.union([live_of(part) for part in parts])
            parts = [with_live(part, live) for part in parts]
        named = [dict(part.named_sums()) for part in parts]
        sums = {name: _add([tensors[name] for tensors in named]) for name in named[0]}
        n_tokens = sum(part.n_tokens_processed for part in parts)
        provenance = merged_provenance([part.provenance for part in parts])
        merged = {**_nest_like(parts[0], sums), "n_tokens_processed": n_tokens, "provenance": provenance}
        return cls(**{**merged, "standard_errors": None})

    @classmethod
    def from_sums(
        cls,
        sums: Sums,
        read: ReadVectors,
        w_unembed: Float[Tensor, "d_model vocab"],
        ci_threshold: float,
        provenance: Mapping[str, Any] | None = None,
    ) -> "DatasetAttributionStorage":
        """The storage of finished sums, in the file's layout; those of all edges are held in memory.

        Args:
            sums: Over the whole dataset.
            read: The model's read vectors.
            w_unembed: The model's unembedding.
            ci_threshold: The threshold to be recorded.
            provenance: What is to be recorded of their origin; plain types.
        """
        tensors = summed_tensors({"sums": sums}, ["sums"], read, len(w_unembed), is_dense=True)
        return cls(
            **map_nested(tensors, whole),
            w_unembed=w_unembed,
            ci_threshold=ci_threshold,
            n_tokens_processed=int(sums.n_tokens),
            provenance=provenance,
        )


def _add(parts: Sequence[Tensor]) -> Tensor:
    wide = torch.float64 if parts[0].is_floating_point() else torch.int64
    total = torch.zeros(parts[0].shape, dtype=wide)
    for part in parts:
        add_chunked_(total, part)
    return total.to(parts[0].dtype)


def _nest_like(content: Content, sums: Mapping[str, Tensor]) -> dict[str, Any]:
    """Other sums, found by their names, in the nesting of a content; what is no sum stays as it is."""

    def nest(name: str, value: object) -> Any:  # noqa: ANN401 - a tensor or a mapping
        if isinstance(value, Mapping):
            return {key: nest(f"{name}[{key}]", inner) for key, inner in value.items()}
        return sums.get(name, value)

    return {name: nest(name, value) for name, value in vars(content).items() if name != "provenance"}


def _ends_as_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # its end says that it is one of several
        return False
