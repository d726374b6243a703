"""What an exported file says of itself, as text: its readers keep metadata as strings."""

import json

from lit_attr._version import __version__
from lit_attr.storage.content import Content
from lit_attr.storage.coverage import missing_batches

FORMAT_VERSION = "1"


def describe(content: Content, layout: str) -> dict[str, str]:
    """Metadata of an export.

    Args:
        content: What is exported.
        layout: Which kind of export it is, such as `lit_attr.edges`.

    Returns:
        Names and texts; entries that are not plain text are JSON. `partial` is empty for a result that is not partial.
    """
    provenance = content.provenance or {}
    return {
        "format": layout,
        "format_version": FORMAT_VERSION,
        "lit_attr_version": __version__,
        "run_id": str(provenance.get("run_id", "")),
        "n_tokens": str(content.n_tokens_processed),
        "ci_threshold": repr(float(content.ci_threshold)),
        "coverage": json.dumps(provenance.get("coverage")),
        "partial": missing_batches(content.provenance) or "",
        "provenance": json.dumps(content.provenance if content.provenance is None else dict(provenance)),
    }
