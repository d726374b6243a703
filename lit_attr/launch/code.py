"""Which code the jobs run: a snapshot of the source, or the installed package."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lit_attr.errors import LaunchError
from lit_attr.launch.git import call_git
from lit_attr.launch.snapshot import (
    Contents,
    check_out,
    delete_branch,
    discard,
    find_commit,
    list_contents,
    repository_of,
    submodules,
    take,
)


@dataclass(frozen=True)
class Code:
    """The code of some jobs.

    Attributes:
        repository: Git working tree that holds the package's source; None for the installed package.
        root: Folder of the package's folder, relative to the repository.
        contents: Files that a new snapshot takes; None where there is none to take.
        commit: The given one that is run instead.
    """

    repository: Path | None = None
    root: Path = Path()
    contents: Contents | None = None
    commit: str | None = None

    @classmethod
    def choose(cls, package: Path, out_dirs: tuple[Path, ...], commit: str | None) -> "Code":
        """Find out which code jobs are to run; writes nothing.

        Args:
            package: Folder of the package.
            out_dirs: Roots of results, which are not code.
            commit: Branch or commit to run instead of the working tree as it is.

        Raises:
            LaunchError: If the commit is not there, or has no such package.
        """
        repository = repository_of(package)
        if repository is None:
            if commit is not None:
                raise LaunchError(f"--snapshot {commit}: the package in {package} is not in a git repository")
            return cls()
        relative = package.resolve().relative_to(repository.resolve())
        if commit is None:
            return cls(repository, relative.parent, contents=list_contents(repository, *out_dirs))
        commit_id = find_commit(repository, commit)
        if not call_git(repository, "ls-tree", "--full-tree", commit_id, f"{relative.as_posix()}/__init__.py"):
            raise LaunchError(f"--snapshot {commit}: there is no {relative}/__init__.py in that commit")
        return cls(repository, relative.parent, commit=commit_id)

    def left_out(self) -> list[str]:
        """What jobs do not find although it is in the working tree or belongs to the commit, with the reasons.

        Raises:
            LaunchError: If git fails.
        """
        if self.contents is not None:
            return list(self.contents.left_out)
        if self.repository is None or self.commit is None:
            return []
        return [f"{path}/ (a submodule)" for path in submodules(self.repository, self.commit)]

    def program(self) -> list[str]:
        """The command that jobs run; `-P`, since the folder they start in may hold a package of this name."""
        return [sys.executable, "-P", "-m", "lit_attr.cli.main"]

    def import_path(self, folder: Path) -> str:
        """What jobs import first, where `write` was given this folder."""
        return "" if self.repository is None else str(folder / self.root)

    def write(self, folder: Path, branch: str) -> str | None:
        """Take the snapshot, and check it out.

        Args:
            folder: A new one.
            branch: Name of the snapshot.

        Returns:
            Its commit; None for the installed package.

        Raises:
            LaunchError: If git fails; then nothing is left behind.
        """
        if self.repository is None:
            return None
        commit = self.commit if self.contents is None else take(self.contents, branch)
        if commit is None:
            raise LaunchError(f"neither files nor a commit of {self.repository} are given")
        try:
            check_out(self.repository, commit, folder)
        except BaseException:
            with suppress(LaunchError):
                self.undo(folder, branch)
            raise
        return commit

    def undo(self, folder: Path, branch: str) -> None:
        """Remove what `write` made.

        Raises:
            LaunchError: If git fails.
        """
        if self.repository is None:
            return
        discard(self.repository, folder)
        if self.contents is not None:
            delete_branch(self.repository, branch)

    def undo_commands(self, folder: Path, branch: str) -> list[list[str]]:
        """The commands by which a user does the same."""
        if self.repository is None:
            return []
        git = ["git", "-C", str(self.repository)]
        remove = [[*git, "worktree", "remove", "--force", str(folder)]]
        return remove if self.contents is None else [*remove, [*git, "branch", "-D", branch]]
