"""What must hold of two results for their edges to be compared one by one, and to be tested."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from lit_attr.errors import ConfigurationError
from lit_attr.query.explorer import Explorer
from lit_attr.storage.provenance import Provenance

# How components are matched where the results do not say that they are of one decomposition.
Match = Literal["index"]
MATCHES: tuple[Match, ...] = ("index",)
_REMEDY = "if components of one index are the same all the same, say so: match='index' (--match index)"


def check_correspondence(one: Explorer, other: Explorer, match: Match | None) -> None:
    """Refuse results whose components, or token ids, do not correspond.

    Args:
        one: A result.
        other: Another one.
        match: `index` to take components and token ids of one index for the same, whatever is recorded of them.

    Raises:
        ConfigurationError: If the layers have other names or sizes, or nothing says that decomposition and tokenizer
            are the same.
        NotHeldError: If one holds its strongest edges alone: what it has dropped would look like a difference.
    """
    if match not in (None, *MATCHES):
        raise ConfigurationError(f"match must be one of {list(MATCHES)}, or not given, found {match!r}")
    for explorer in (one, other):
        explorer.storage.check_holds_edges()
    if one.path.resolve() == other.path.resolve():
        raise ConfigurationError(
            f"cannot compare {one.path} with itself: name two results by their folders, da-..., or files"
        )
    sizes, others = one.layers, other.layers
    if wrong := [layer for layer in {**sizes, **others} if sizes.get(layer) != others.get(layer)]:
        layer = wrong[0]
        found, expected = others.get(layer, "none"), sizes.get(layer, "none")
        raise ConfigurationError(
            f"cannot compare {other.path} with {one.path}: {len(wrong)} layers differ, such as {layer}: expected "
            f"{expected} components or token ids as in the first, found {found}"
        )
    if match == "index":
        return
    recorded = one.storage.recorded, other.storage.recorded
    digests = [known.weights_digest for known in recorded]
    if None in digests or digests[0] != digests[1]:
        expected, found = ("not recorded" if digest is None else digest[:12] for digest in digests)
        raise ConfigurationError(
            f"cannot compare {other.path} with {one.path}: expected the same decomposition (weights_digest "
            f"{expected}), found another ({found}), whose components need not correspond; {_REMEDY}"
        )
    tokenizers = [known.tokenizer for known in recorded]
    if None not in tokenizers and tokenizers[0] != tokenizers[1]:
        raise ConfigurationError(
            f"cannot compare {other.path} with {one.path}: expected the same tokenizer ({tokenizers[0]}), found "
            f"{tokenizers[1]}, whose token ids need not correspond; {_REMEDY}"
        )


def why_not_tested(one: Explorer, other: Explorer) -> str | None:
    """Why nothing can be said of how sure differences are; None if two results are of different data with errors."""
    without = [str(each.path) for each in (one, other) if each.storage.standard_errors is None]
    if without:
        return f"without standard errors nothing says how sure a difference is: {' and '.join(without)} have none"
    if what := _shared(one.storage.recorded, other.storage.recorded):
        return f"both are of the same data ({what}): standard errors of a difference need independent results"
    return None


def _shared(one: Provenance, other: Provenance) -> str | None:
    """What of the data is known to be in both results, in words."""
    entries = one.entries, other.entries
    ordered = [_order(each) for each in entries]
    same_rows = one.entries.get("data_digest") is not None and ordered[0] is not None and ordered[0] == ordered[1]
    # Batches are known by their ids: of the same rows in the same order, or of a larger part of the same source.
    if same_rows and one.coverage is not None and other.coverage is not None:
        ranges = [[range(a, b + 1, step) for a, b, step in each.coverage.batches] for each in (one, other)]  # type: ignore[union-attr]
        n_shared = sum(_n_common(a, b) for a in ranges[0] for b in ranges[1])
        return f"{n_shared:,} batches are in both" if n_shared else None
    digests = [set(_digests(each)) for each in entries]
    return "the digest of their token ids is the same" if digests[0] & digests[1] else None


def _order(entries: Mapping[str, Any]) -> tuple[object, ...] | None:
    """What makes batches of one id the same rows: source, size and order; None where it is not recorded."""
    configuration = entries.get("configuration")
    data = configuration.get("data") if isinstance(configuration, Mapping) else None
    if not isinstance(data, Mapping) or entries.get("merged_from") is not None:
        return None
    source = data.get("tokens") or data.get("dataset")
    order = tuple(entries.get(name) for name in ("order", "order_seed", "order_rows"))
    return None if source is None else (source, data.get("batch_size"), *order)


def _digests(entries: Mapping[str, Any]) -> Iterator[str]:
    digest, parts = entries.get("data_digest"), entries.get("merged_from")
    if isinstance(digest, str):
        yield digest
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, Mapping):
            yield from _digests(part)


def _n_common(one: range, other: range) -> int:
    shorter, longer = sorted((one, other), key=len)
    return sum(number in longer for number in shorter)
