"""Filling in the shipped job scripts."""

import re
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files


def template(name: str) -> str:
    """The text of a shipped job script.

    Args:
        name: `array`, `predict` or `merge`.
    """
    return (files("lit_attr.launch") / "templates" / f"{name}.sbatch").read_text(encoding="utf-8")


def render(text: str, options: Mapping[str, str | None], variables: Mapping[str, str | Sequence[str]]) -> str:
    r"""Fill in a job script: nothing but values of `#SBATCH` lines and of shell variables changes.

    Args:
        text: The script.
        options: Values of `#SBATCH` lines, by their long names; None switches a line off.
        variables: Values of shell variables: a text, or the words of an array.

    Raises:
        KeyError: If the script has no such line.

    Example:
        >>> render("#SBATCH --time=1\narguments=()", {"time": "2:00"}, {"arguments": ["--model.run", "my run"]})
        "#SBATCH --time=2:00\narguments=(--model.run 'my run')"
    """
    for name, option in options.items():
        # sbatch reads these lines with quotes, like a shell.
        filled = f"#SBATCH --{name}={shlex.quote(option)}" if option is not None else f"##SBATCH --{name}=none"
        text = _replace_line(text, rf"#+SBATCH --{re.escape(name)}=.*", filled)
    for name, value in variables.items():
        filled = shlex.quote(value) if isinstance(value, str) else f"({shlex.join(value)})"
        text = _replace_line(text, rf"{re.escape(name)}=.*", f"{name}={filled}")
    return text


def _replace_line(text: str, pattern: str, line: str) -> str:
    text, n_replaced = re.subn(rf"^{pattern}$", lambda _: line, text, count=1, flags=re.MULTILINE)
    if not n_replaced:
        raise KeyError(f"no line like {pattern!r} in the job script")
    return text
