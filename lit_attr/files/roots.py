"""The folder under which runs are sought and results are written."""

import os
from pathlib import Path

_VARIABLES = ("LIT_ATTR_OUT_DIR", "SPD_OUT_DIR")
_FALLBACK = "out"


def output_root(out_dir: str | os.PathLike[str] | None = None) -> Path:
    """The output root: `out_dir` if given, else `$LIT_ATTR_OUT_DIR`, else `$SPD_OUT_DIR`, else `./out`; absolute."""
    candidates = [out_dir, *(os.environ.get(name) for name in _VARIABLES), _FALLBACK]
    return Path(next(c for c in candidates if c)).expanduser().absolute()
