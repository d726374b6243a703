"""What the commands of docs/scale.md print: `python -m tests.docs.scale` writes it there anew."""

import contextlib
import io
import re
import shlex
from pathlib import Path

from lit_attr.cli.main import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scale.md"
_SHOWN = re.compile(r"(<!-- test: scale \w+ -->\n```bash\n(.*?)```\n\n```text\n)(.*?)(```)", re.DOTALL)


def commands(page: str) -> list[str]:
    """The commands whose output the page shows."""
    return [command for _, command, _, _ in _SHOWN.findall(page)]


def printed(command: str) -> str:
    """What a command prints; it is run in the root of the repository."""
    program, *arguments = shlex.split(command.replace("\\\n", " "))
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.chdir(ROOT):
        if program != "lit-attr" or main(arguments):
            raise RuntimeError(f"failed: {command}")
    return out.getvalue()


def rewritten(page: str) -> str:
    """The page with what its commands print now."""
    return _SHOWN.sub(lambda found: found[1] + printed(found[2]) + found[4], page)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
