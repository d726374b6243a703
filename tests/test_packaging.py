"""What is installed, and that it is found wherever Python is started."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lit_attr import __version__

ROOT = Path(__file__).parents[1]


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the working tree, under the package's own name."""
    clone = tmp_path_factory.mktemp("beside") / "lit_attr"
    files = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in files:
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    return clone


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of a fresh virtual environment."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    return folder / "bin" / "python"


@pytest.mark.slow
def test_the_wheel_has_the_package_and_nothing_else(clone, python, tmp_path):
    run(python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, ".", cwd=clone)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"lit_attr-{__version__}-py3-none-any.whl"
    information = f"lit_attr-{__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        names, metadata = archive.namelist(), archive.read(f"{information}/METADATA").decode()
    package = [str(path.relative_to(clone)) for path in (clone / "lit_attr").rglob("*") if path.is_file()]
    expected = {name for name in package if not name.startswith("lit_attr/view/page/")}
    expected |= {f"{information}/{n}" for n in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert set(names) == expected
    for name in ("py.typed", "assets/tokens.npy", "launch/templates/array.sbatch", "view/static/app.js"):
        assert f"lit_attr/{name}" in names
    assert "License-Expression: MIT" in metadata.splitlines()


@pytest.mark.slow
def test_a_clone_does_not_hide_the_package_from_what_is_run_beside_it(clone, python):
    run(python, "-m", "pip", "install", "--no-deps", "-e", ".", cwd=clone)
    code = "import lit_attr; print(lit_attr.__version__, lit_attr.__file__)"
    for folder in (clone.parent, clone, clone / "tests"):
        assert run(python, "-c", code, cwd=folder).split() == [__version__, str(clone / "lit_attr" / "__init__.py")]
    for command in ([python, "-m", "lit_attr"], [python.parent / "lit-attr"]):
        assert run(*command, "--version", cwd=clone.parent) == f"lit_attr {__version__}\n"
