import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from lit_attr.errors import LaunchError
from lit_attr.launch.code import Code
from lit_attr.launch.snapshot import MAX_BYTES, check_out, list_contents, repository_of, take
from tests.launch.standin import git, make_repository


def state(repository):
    """All bytes of a working tree, its index and HEAD, with times of the files."""
    found = {}
    for folder, folders, names in os.walk(repository):
        folders[:] = [name for name in folders if name != ".git"]
        for name in names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            data = os.readlink(path).encode() if os.path.islink(path) else Path(path).read_bytes()
            found[path] = (status.st_mode, status.st_mtime_ns, hashlib.sha256(data).hexdigest())
    for name in ("index", "HEAD", "config"):
        path = repository / ".git" / name
        found[name] = (path.read_bytes(), path.stat().st_mtime_ns) if path.exists() else None
    found["branch"] = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True).stdout
    return found


def files(folder):
    """Paths and bytes of a checkout."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".git"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def repository(tmp_path):
    """Committed files, then changes of all kinds."""
    repository = make_repository(tmp_path / "repo")
    for name in ("changed", "staged", "deleted", "removed", "assumed", "kept"):
        (repository / name).write_text("old")
    (repository / "was_folder").mkdir()
    (repository / "was_folder" / "inner").write_text("old")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "second")
    git(repository, "update-index", "--assume-unchanged", "assumed")
    for name in ("changed", "assumed", "new name with ünicode\nand more", " leading"):
        (repository / name).write_text("new")
    (repository / "staged").write_text("staged")
    (repository / "forced.log").write_text("ignored, but staged")
    git(repository, "add", "-f", "staged", "forced.log")
    (repository / "staged").write_text("newer than staged")
    (repository / "ignored.log").write_text("ignored")
    (repository / "deleted").unlink()
    git(repository, "rm", "-q", "removed")
    (repository / "was_folder" / "inner").unlink()
    (repository / "was_folder").rmdir()
    (repository / "was_folder").write_text("file now")
    (repository / "program").write_text("#!/bin/sh")
    (repository / "program").chmod(0o755)
    (repository / "link").symlink_to("nowhere")
    (repository / "big").write_bytes(b"x" * (MAX_BYTES + 1))
    (repository / "almost_big").write_bytes(b"x" * MAX_BYTES)
    (repository / "out" / "deep").mkdir(parents=True)
    (repository / "out" / "deep" / "result.pt").write_text("result")
    (repository / "outside").write_text("begins like the output root")
    make_repository(repository / "nested")
    return repository


def test_a_snapshot_is_the_tree_and_does_not_touch_it(repository, tmp_path):
    before = state(repository)
    contents = list_contents(repository, repository / "out")
    commit = take(contents, "lit-attr-test")
    check_out(repository, commit, tmp_path / "code")
    assert state(repository) == before
    assert (
        git(repository, "rev-parse", "lit-attr-test", "lit-attr-test^")
        == f"{commit}\n{git(repository, 'rev-parse', 'HEAD')}"
    )
    assert contents.left_out == ("out/ (output root)", "big (10.0 MB)", "nested/ (a repository of its own)")
    expected = files(repository)
    without = [name for name in expected if name.startswith(("out/", "nested/", ".git/"))]
    for name in ("ignored.log", "big", *without):
        del expected[name]
    assert files(tmp_path / "code") == expected
    assert expected.keys() >= {"forced.log", " leading", "new name with ünicode\nand more", "outside", "almost_big"}
    assert os.readlink(tmp_path / "code" / "link") == "nowhere"
    assert os.access(tmp_path / "code" / "program", os.X_OK)


def test_before_the_first_commit(tmp_path):
    repository = tmp_path / "repo"
    repository.mkdir()
    git(repository, "init", "-q")
    (repository / "file").write_text("x")
    before = state(repository)
    commit = take(list_contents(repository), "lit-attr-test")
    assert state(repository) == before
    check_out(repository, commit, tmp_path / "code")
    assert files(tmp_path / "code") == {"file": b"x"}


def test_in_a_git_hook_and_with_hooks(tmp_path, monkeypatch):
    """Variables that point git elsewhere, and hooks of the repository, change nothing."""
    repository = make_repository(tmp_path / "repo")
    for name in ("post-checkout", "reference-transaction"):
        hook = repository / ".git" / "hooks" / name
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o755)
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    commit = take(list_contents(repository), "lit-attr-test")
    check_out(repository, commit, tmp_path / "code")
    assert "lit_attr/cli/main.py" in files(tmp_path / "code")


def test_files_behind_a_linked_folder(tmp_path):
    """A tracked folder that is a link now: git has no files behind it."""
    repository = make_repository(tmp_path / "repo")
    (repository / "lit_attr").rename(tmp_path / "moved")
    (repository / "lit_attr").symlink_to(tmp_path / "moved")
    assert list_contents(repository).kept == (".gitignore", "lit_attr")


def test_an_existing_branch_is_refused(tmp_path):
    repository = make_repository(tmp_path / "repo")
    with pytest.raises(LaunchError, match=r"git update-ref failed in .*repo: .*reference already exists"):
        take(list_contents(repository), "trunk")


def test_the_repository_as_output_root_is_refused(tmp_path):
    repository = make_repository(tmp_path / "repo")
    with pytest.raises(LaunchError, match=r"the output root is the repository .*repo itself"):
        list_contents(repository, repository)
    assert list_contents(repository, tmp_path).left_out == ()


def test_no_repository(tmp_path, monkeypatch):
    package = make_repository(tmp_path / "repo") / "lit_attr"
    assert repository_of(package) == tmp_path / "repo"
    installed = tmp_path / "repo" / "venv" / "site-packages" / "lit_attr"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    (tmp_path / "repo" / ".gitignore").write_text("venv/")
    assert repository_of(installed) is None  # in a repository's folder, but ignored
    (tmp_path / "plain").mkdir()
    assert repository_of(tmp_path / "plain") is None
    assert Code.choose(tmp_path / "plain", (), None) == Code()
    with pytest.raises(LaunchError, match=r"--snapshot trunk: the package in .*plain is not in a git repository"):
        Code.choose(tmp_path / "plain", (), "trunk")
    monkeypatch.setenv("PATH", "")
    assert repository_of(package) is None


def test_an_earlier_commit_instead(tmp_path):
    repository = make_repository(tmp_path / "repo")
    (repository / "later").write_text("not in it")
    code = Code.choose(repository / "lit_attr", (), "trunk")
    assert code.write(tmp_path / "code", "unused") == git(repository, "rev-parse", "trunk").strip()
    assert "later" not in files(tmp_path / "code")
    assert code.import_path(tmp_path / "code") == str(tmp_path / "code")
    assert git(repository, "branch", "--format=%(refname:short)") == "trunk\n"
    for name in ("nothing", "--help"):
        with pytest.raises(LaunchError, match=f"no branch or commit '{name}' in"):
            Code.choose(repository / "lit_attr", (), name)
    git(repository, "checkout", "-q", "--orphan", "bare")
    git(repository, "rm", "-rqf", "--cached", ".")
    git(repository, "commit", "-q", "--allow-empty", "-m", "no package")
    with pytest.raises(LaunchError, match=r"--snapshot bare: there is no lit_attr/__init__\.py in that commit"):
        Code.choose(repository / "lit_attr", (), "bare")


@pytest.mark.parametrize("checked_out", [True, False])
def test_submodules_are_left_out_and_named(tmp_path, checked_out):
    """Of a snapshot and of a commit; ignored files are no part of either, and are not named."""
    make_repository(tmp_path / "library")
    repository = make_repository(tmp_path / "repository")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "library"), "lib")
    git(repository, "commit", "-q", "-m", "with a submodule")
    if not checked_out:
        git(repository, "submodule", "--quiet", "deinit", "--force", "lib")
    (repository / "ignored.log").write_text("x")
    assert list_contents(repository).left_out == ("lib/ (a repository of its own)",)
    package = repository / "lit_attr"
    for commit, reason in ((None, "a repository of its own"), ("trunk", "a submodule")):
        code = Code.choose(package, (), commit)
        assert code.left_out() == [f"lib/ ({reason})"]
        code.write(tmp_path / f"code-{commit}", f"lit-attr-{commit}")
        assert (tmp_path / f"code-{commit}" / "lit_attr" / "cli" / "main.py").is_file()
        assert not list((tmp_path / f"code-{commit}").glob("lib/*"))
        assert not (tmp_path / f"code-{commit}" / "ignored.log").exists()
