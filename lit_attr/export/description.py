"""What an exported file says of itself, as text: its readers keep metadata as strings."""

import json

from lit_attr._version import __version__
from lit_attr.files.limits import check_plain
from lit_attr.storage.file_content import Content
from lit_attr.storage.harvested_targets import HarvestedTargets

FORMAT_VERSION = "1"


def describe(content: Content, layout: str) -> dict[str, str]:
    """Metadata of an export.

    Args:
        content: What is exported.
        layout: Which kind of export it is, such as `lit_attr.edges`.

    Returns:
        Names and texts; entries that are not plain text are JSON. `partial` is empty for a result that is not partial.
        `not_harvested` has the numbers of components that were no targets, by layer: what feeds these was not measured,
        and is zero in tensors, and in no table. It is empty where all were targets, or where the result does not say.
        `form` is `dense`, or `compact` where tensors of edges have places for live sources and targets alone.
        `metrics` are those that were harvested; `abs_sample` says from which part of the data `attr_abs` is, and is
        empty where it is of all of it, or was not harvested.
        `rounding` says how far sums that were rounded to bfloat16 are from those in float32, and is empty for others.

    Raises:
        StorageError: If the provenance does not list these components, the coverage, or the metrics as `lit_attr` does,
            or has what JSON cannot hold.
    """
    check_plain(content.provenance, "the provenance")
    known, harvested = content.recorded, HarvestedTargets(content)
    not_harvested = {layer: n for layer in content.ci_sum if (n := harvested.n_missing([layer]))}
    sample = content.sample("attr_abs") if "attr_abs" in content.metrics else None
    return {
        "format": layout,
        "format_version": FORMAT_VERSION,
        "lit_attr_version": __version__,
        "form": "dense" if content.live is None else "compact",
        "run_id": known.run_id or "",
        "n_tokens": str(content.n_tokens_processed),
        "ci_threshold": repr(float(content.ci_threshold)),
        "coverage": json.dumps(known.coverage and known.coverage.to_mapping()),
        "partial": known.partial or "",
        "not_harvested": json.dumps(not_harvested),
        "metrics": json.dumps(content.metrics),
        "abs_sample": "" if sample is None else str(sample),
        "rounding": "" if content.rounding is None else str(content.rounding),
        "provenance": json.dumps(content.provenance and dict(content.provenance)),
    }
