"""The versions of what decides the numbers of a harvest."""

from collections.abc import Iterable, Mapping
from importlib.metadata import version

from lit_attr._version import __version__

Software = Mapping[str, str]


def software(*libraries: str) -> dict[str, str]:
    """Name to version: of `lit_attr`, torch, and other libraries.

    Args:
        libraries: Names of others whose code the model runs. Data and weights are compared by their digests, whatever
            has read them.
    """
    return {"lit_attr": __version__, **{name: version(name) for name in ("torch", *libraries)}}


def named_versions(versions: Software) -> dict[str, str]:
    """What is compared of versions: not what tells builds of a release apart (`+cpu`), which agree to rounding.

    Example:
        >>> named_versions({"torch": "2.13.0+cpu"})
        {'version of torch': '2.13.0'}
    """
    return {f"version of {name}": text.partition("+")[0] for name, text in versions.items()}


def distinct(many: Iterable[Software]) -> list[dict[str, str]]:
    """The different ones of several, in the order in which they first appear."""
    return list({tuple(versions.items()): dict(versions) for versions in many}.values())
