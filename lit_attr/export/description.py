"""What an exported file says of itself, as text: its readers keep metadata as strings."""

import json

from lit_attr._version import __version__
from lit_attr.storage.file_content import Content

FORMAT_VERSION = "1"


def describe(content: Content, layout: str) -> dict[str, str]:
    """Metadata of an export.

    Args:
        content: What is exported.
        layout: Which kind of export it is, such as `lit_attr.edges`.

    Returns:
        Names and texts; entries that are not plain text are JSON. `partial` is empty for a result that is not partial.
    """
    known = content.recorded
    return {
        "format": layout,
        "format_version": FORMAT_VERSION,
        "lit_attr_version": __version__,
        "run_id": known.run_id or "",
        "n_tokens": str(content.n_tokens_processed),
        "ci_threshold": repr(float(content.ci_threshold)),
        "coverage": json.dumps(known.coverage and known.coverage.to_mapping()),
        "partial": known.partial or "",
        "provenance": json.dumps(content.provenance and dict(content.provenance)),
    }
