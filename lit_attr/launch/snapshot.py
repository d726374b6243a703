"""A git branch that holds the working tree as it is, taken without touching it."""

import os
import stat
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lit_attr.errors import LaunchError
from lit_attr.launch.git import call_git

MAX_BYTES = 10_000_000
_SUBMODULE = "160000 "  # how git lists one


@dataclass(frozen=True)
class Contents:
    """What goes into a snapshot.

    Attributes:
        repository: The working tree's folder.
        kept: Files, relative to it.
        left_out: What is not kept although git would see it, with the reasons.
    """

    repository: Path
    kept: tuple[str, ...]
    left_out: tuple[str, ...]


def repository_of(package: Path) -> Path | None:
    """The git working tree that a package's source is part of; None where there is none, or no git.

    Args:
        package: Folder of the package. In a virtual environment inside a repository it is not part of that: git
            ignores it.
    """
    try:
        repository = Path(call_git(package, "rev-parse", "--show-toplevel"))
        listed = call_git(package, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "__init__.py")
    except LaunchError:
        return None
    return repository if listed else None


def list_contents(repository: Path, *out_dirs: Path) -> Contents:
    """All files of a working tree, committed or not, but for those that git ignores, results, and large files.

    Args:
        repository: The working tree's folder.
        out_dirs: Roots of results.

    Raises:
        LaunchError: If git fails, or the tree itself is a root of results.
    """
    top = repository.resolve()
    roots = {root.resolve() for root in out_dirs}
    if top in roots:
        raise LaunchError(f"the output root is the repository {repository} itself: choose a folder within or outside")
    inside = sorted(str(root.relative_to(top)) for root in roots if root.is_relative_to(top))
    kept, left_out = [], [f"{root}/ (output root)" for root in inside]
    listed = call_git(repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    own = submodules(repository)

    @cache
    def behind_link(folder: str) -> bool:  # git takes no file that a linked folder only shows
        return folder != "" and (os.path.islink(repository / folder) or behind_link(os.path.dirname(folder)))

    for path in sorted(set(filter(None, listed))):
        if any(path == root or path.startswith(f"{root}/") for root in inside):
            continue
        try:
            status = (repository / path).lstat()
        except (FileNotFoundError, NotADirectoryError):  # deleted, and that not committed
            continue
        if stat.S_ISDIR(status.st_mode):
            if path in own or (repository / path / ".git").exists():
                left_out.append(f"{path.rstrip('/')}/ (a repository of its own)")
        elif status.st_size > MAX_BYTES:
            left_out.append(f"{path} ({status.st_size / 1e6:.1f} MB)")
        elif not behind_link(os.path.dirname(path)):
            kept.append(path)
    return Contents(repository, tuple(kept), tuple(left_out))


def submodules(repository: Path, commit: str | None = None) -> list[str]:
    """The folders of a repository's submodules, whose files are in none of its commits.

    Args:
        repository: The working tree's folder.
        commit: The commit that is asked; None for the working tree.

    Raises:
        LaunchError: If git fails.
    """
    command = ["ls-files", "-z", "--stage"] if commit is None else ["ls-tree", "-z", "-r", "--full-tree", commit]
    entries = call_git(repository, *command).split("\0")
    return [entry.partition("\t")[2] for entry in entries if entry.startswith(_SUBMODULE)]


def take(contents: Contents, branch: str) -> str:
    """Commit files to a new branch. Index, HEAD and working tree stay as they are.

    Args:
        contents: The files.
        branch: Name of the branch.

    Returns:
        The commit.

    Raises:
        LaunchError: If git fails, or there is such a branch.
    """
    repository = contents.repository
    try:
        parent = ["-p", call_git(repository, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")]
    except LaunchError:  # nothing has been committed yet
        parent = []
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        call_git(repository, "update-index", "--add", "-z", "--stdin", paths=contents.kept, index=index)
        tree = call_git(repository, "write-tree", index=index)
    commit = call_git(repository, "commit-tree", tree, *parent, "-m", f"Working tree for {branch}")
    call_git(repository, "update-ref", f"refs/heads/{branch}", commit, "")  # refused where it exists
    return commit


def find_commit(repository: Path, name: str) -> str:
    """The commit that a branch, tag or commit name stands for.

    Raises:
        LaunchError: If there is none.
    """
    try:
        return call_git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except LaunchError as error:
        raise LaunchError(f"no branch or commit {name!r} in {repository}") from error


def check_out(repository: Path, commit: str, folder: Path) -> None:
    """Write the files of a commit into a new folder, a git worktree.

    Raises:
        LaunchError: If git fails.
    """
    call_git(repository, "worktree", "add", "--detach", str(folder), commit)


def discard(repository: Path, folder: Path) -> None:
    """Remove a worktree, as far as it is there.

    Raises:
        LaunchError: If git fails.
    """
    if folder.exists():
        call_git(repository, "worktree", "remove", "--force", str(folder))


def delete_branch(repository: Path, branch: str) -> None:
    """Remove a branch, whatever it holds; one that is not there is no error.

    Raises:
        LaunchError: If git fails.
    """
    call_git(repository, "update-ref", "-d", f"refs/heads/{branch}")
