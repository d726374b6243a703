"""Keys on command lines."""

from collections.abc import Iterable

from lit_attr.errors import KeyFormatError


def check_keys(keys: Iterable[str]) -> None:
    """See mistakes before anything is imported or opened; what a key means is seen by an `Explorer`.

    Args:
        keys: As people write them.

    Raises:
        KeyFormatError: If one has no colon.
    """
    for key in keys:
        if ":" not in key:
            raise KeyFormatError(f"malformed component key {key!r}: expected '<layer>:<index>', such as '0.mlp.up:5'")
