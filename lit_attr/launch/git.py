"""Calling git."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from lit_attr.errors import LaunchError

# With these set, as in a git hook, git would look at another repository or another index.
_REDIRECTIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
# Snapshots are nobody's work, and must be possible where no name is configured.
_IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "lit-attr submit"), ("EMAIL", "lit-attr@localhost"))
}


def call_git(folder: Path, *arguments: str, paths: Iterable[str] = (), index: Path | None = None) -> str:
    """Run git, without its hooks.

    Args:
        folder: Folder that git is run in.
        arguments: Command and options of git.
        paths: Given on standard input, each with a zero byte behind it.
        index: File that takes the place of the repository's index.

    Returns:
        What it prints, without the last line break; names of files as Python has them.

    Raises:
        LaunchError: If there is no git, or it fails.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _REDIRECTIONS}
    environment |= {**_IDENTITY, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    command = ["git", "-c", "core.hooksPath=/dev/null", *arguments]
    text = "".join(f"{path}\0" for path in paths)
    try:
        done = subprocess.run(command, cwd=folder, env=environment, input=os.fsencode(text), capture_output=True)
    except OSError as error:
        raise LaunchError(f"cannot run git in {folder}: {error}") from error
    if done.returncode:
        reason = " ".join(os.fsdecode(done.stderr).split())
        raise LaunchError(f"git {arguments[0]} failed in {folder}: {reason}")
    return os.fsdecode(done.stdout).removesuffix("\n")
