"""What must hold of results for their sum to be one of them: the same model, targets, metrics, and share of data."""

from collections.abc import Mapping, Sequence

import torch

from lit_attr.errors import StorageError, few, naming
from lit_attr.storage.file_content import Content
from lit_attr.storage.harvested_targets import HarvestedTargets
from lit_attr.storage.provenance import SAME_IN_ALL_PARTS

_SHOWN = 5
_SHOWN_TEXT = 200


def check_mergeable(results: Mapping[str, Content]) -> None:
    """Refuse results that must not be added.

    Args:
        results: Name of each result to its content; at least one.

    Raises:
        StorageError: If one is of another model, threshold, precision, set of metrics, share of the sequences for
            attr_abs, or set of targets than another; or has sums of edges that are not measured according to another,
            and does not record which were; or if the sums of one were rounded.
    """
    (first_name, first), *others = results.items()
    for name, one in results.items():
        if one.rounding is not None:
            raise StorageError(
                f"cannot merge {name}: {one.rounding}, and errors of a sum of such have no bound, since terms may "
                "cancel: expected results in float32, such as `lit-attr merge` makes of the same parts"
            )
    for name, other in others:
        _check_same_metrics(first_name, first, name, other)
        _check_same_shapes(first_name, first, name, other)
    for entry in SAME_IN_ALL_PARTS:
        recorded = [(name, value) for name, one in results.items() if (value := _recorded(one, entry)) is not None]
        for name, value in recorded[1:]:
            if value != recorded[0][1]:
                expected, actual = (f"{shown!r:.{_SHOWN_TEXT}}" for shown in (recorded[0][1], value))
                raise _refusal(name, recorded[0][0], entry, expected, actual)
    _check_targets(results)


def _check_same_metrics(first_name: str, first: Content, name: str, other: Content) -> None:
    if first.metrics != other.metrics:
        raise _refusal(name, first_name, "metrics", *(" and ".join(one.metrics) for one in (first, other)))
    if "attr_abs" in first.metrics:
        expected, actual = (_share(*named) for named in ((first_name, first), (name, other)))
        if expected != actual:
            raise _refusal(name, first_name, "abs_share", expected, actual)


def _share(name: str, content: Content) -> float:
    """The share of the sequences from which the sums of attr_abs are."""
    with naming(name):
        sample = content.sample("attr_abs")
    return 1.0 if sample is None else sample.share


def _check_same_shapes(first_name: str, first: Content, name: str, other: Content) -> None:
    if first.ci_threshold != other.ci_threshold:
        raise _refusal(name, first_name, "ci_threshold", first.ci_threshold, other.ci_threshold)
    shapes, others = first.dense_shapes, other.dense_shapes
    if differing := sorted(n for n in shapes | others if shapes.get(n) != others.get(n)):
        names = differing[:_SHOWN]
        what = f"{len(differing)} sums differ in name or shape, such as"
        raise _refusal(name, first_name, what, {n: shapes.get(n) for n in names}, {n: others.get(n) for n in names})
    if not torch.equal(first.w_unembed, other.w_unembed):
        raise StorageError(f"cannot merge {name} with {first_name}: their unembeddings (w_unembed) differ")


def _check_targets(results: Mapping[str, Content]) -> None:
    """Results that do not record their targets must have had those of a result that does."""
    recording = [name for name, one in results.items() if _recorded(one, "not_targets") is not None]
    for name, other in results.items():
        if not recording or name in recording:
            continue
        harvested = HarvestedTargets(results[recording[0]])
        for layer in other.ci_sum:
            if measured := _fed(other, layer, harvested.missing(layer).tolist()):
                raise StorageError(
                    f"cannot merge {name} with {recording[0]}: expected the same targets in both; {name} does not "
                    f"record its targets, and has edges into {few(measured)}, which are no targets in {recording[0]}"
                )


def _fed(content: Content, layer: str, indices: Sequence[int]) -> list[str]:
    """Which of some components of a layer have a stored edge into them that is not zero."""
    blocks = [
        *(
            block
            for nested in (content.regular_attr, content.regular_attr_abs)
            for block in nested.get(layer, {}).values()
        ),
        *(nested[layer] for nested in (content.embed_attr, content.embed_attr_abs) if layer in nested),
    ]
    places = ((index, content.stored_targets(layer).place(index)) for index in indices)
    return [f"{layer}:{i}" for i, place in places if place is not None and any(block[place].any() for block in blocks)]


def _recorded(content: Content, entry: str) -> object:
    return None if content.provenance is None else content.provenance.get(entry)


def _refusal(name: str, other: str, what: str, expected: object, actual: object) -> StorageError:
    return StorageError(f"cannot merge {name} with {other}: {what} {actual}, expected {expected}")
