"""Paths as users write them, and the folder under which runs are sought and results are written."""

import os
from pathlib import Path

from lit_attr.errors import ConfigurationError

# The last two are those of goodfire-ai/spd and goodfire-ai/param-decomp.
_VARIABLES = ("LIT_ATTR_OUT_DIR", "SPD_OUT_DIR", "PARAM_DECOMP_OUT_DIR")
_FALLBACK = "out"
# In words, for help and messages.
DEFAULT_ROOT = f"{', else '.join(f'${name}' for name in _VARIABLES)}, else ./{_FALLBACK}"
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
    """The output root: `out_dir` if given, else the first of `input_roots`; absolute.

    Raises:
        ConfigurationError: If it has a zero byte, which no path has.
    """
    if not out_dir:
        return input_roots()[0]
    if "\0" in str(out_dir):
        raise ConfigurationError(f"out_dir is no path: it has a zero byte, found {str(out_dir)!r}")
    return user_path(out_dir).absolute()


def input_roots() -> list[Path]:
    """The roots under which runs are sought, absolute: those that the variables name, else `./out`.

    The variables are `$LIT_ATTR_OUT_DIR`, `$SPD_OUT_DIR` and `$PARAM_DECOMP_OUT_DIR`, in this order.
    """
    named = [value for name in _VARIABLES if (value := os.environ.get(name))]
    return list(dict.fromkeys(user_path(root).absolute() for root in named or [_FALLBACK]))
