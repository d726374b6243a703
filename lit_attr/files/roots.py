"""Paths as users write them, and the folder under which runs are sought and results are written."""

import os
from pathlib import Path

_VARIABLES = ("LIT_ATTR_OUT_DIR", "SPD_OUT_DIR")
_FALLBACK = "out"


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user has written it: `~` and `~name` are home folders, where such a user exists."""
    return Path(os.path.expanduser(path))


def output_root(out_dir: str | os.PathLike[str] | None = None) -> Path:
    """The output root: `out_dir` if given, else `$LIT_ATTR_OUT_DIR`, else `$SPD_OUT_DIR`, else `./out`; absolute."""
    candidates = [out_dir, *(os.environ.get(name) for name in _VARIABLES), _FALLBACK]
    return user_path(next(c for c in candidates if c)).absolute()
