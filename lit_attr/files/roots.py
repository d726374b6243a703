"""Paths as users write them, and the folder under which runs are sought and results are written."""

import os
from pathlib import Path

from lit_attr.errors import ConfigurationError

_VARIABLES = ("LIT_ATTR_OUT_DIR", "SPD_OUT_DIR")
_FALLBACK = "out"
_LONGEST_NAME, _LONGEST_PATH = 255, 3000  # the system takes 4096, with the folder that a path is relative to


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user has written it: `~` and `~name` are home folders, where such a user exists."""
    return Path(os.path.expanduser(path))


def could_be_path(text: str) -> bool:
    """Whether a text, of which a file says that it is a path or name, may be asked for: others the system refuses."""
    data = text.encode(errors="surrogatepass")
    return len(data) < _LONGEST_PATH and b"\0" not in data and all(len(p) <= _LONGEST_NAME for p in data.split(b"/"))


def is_file_name(text: str) -> bool:
    """Whether a text names a file or folder within another, and cannot lead out of it."""
    fits = len(text.encode(errors="surrogatepass")) <= _LONGEST_NAME
    return fits and text not in ("", ".", "..") and not {"/", "\0"} & set(text)


def output_root(out_dir: str | os.PathLike[str] | None = None) -> Path:
    """The output root: `out_dir` if given, else `$LIT_ATTR_OUT_DIR`, else `$SPD_OUT_DIR`, else `./out`; absolute.

    Raises:
        ConfigurationError: If it has a zero byte, which no path has.
    """
    candidates = [out_dir, *(os.environ.get(name) for name in _VARIABLES), _FALLBACK]
    root = next(c for c in candidates if c)
    if "\0" in str(root):
        raise ConfigurationError(f"out_dir is no path: it has a zero byte, found {str(root)!r}")
    return user_path(root).absolute()
