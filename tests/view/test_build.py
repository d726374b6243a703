"""What is served is what the sources in the repository give."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import lit_attr.view
from tests.view.test_docs import block

FOLDER = Path(lit_attr.view.__file__).parent
PAGE, STATIC = FOLDER / "page", FOLDER / "static"


@pytest.mark.browser
def test_one_command_builds_the_page_byte_for_byte(tmp_path):
    """Of packages whose digests are in the lock file; they are fetched from wherever npm is set up to."""
    if shutil.which("npm") is None:
        pytest.skip("no npm here (Debian: nodejs, npm)")
    copy = tmp_path / "view" / "page"
    shutil.copytree(PAGE, copy, ignore=shutil.ignore_patterns("node_modules"))
    command = block("test: view build").replace("lit_attr/view/page", str(copy))
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    built = tmp_path / "view" / "static"
    assert sorted(path.name for path in built.iterdir()) == sorted(path.name for path in STATIC.iterdir())
    for path in built.iterdir():
        assert path.read_bytes() == (STATIC / path.name).read_bytes(), f"{path.name}: npm run build was forgotten"


def test_versions_are_fixed_and_no_registry_is_named():
    package, lock = (json.loads((PAGE / name).read_text()) for name in ("package.json", "package-lock.json"))
    for name, version in {**package["dependencies"], **package["devDependencies"]}.items():
        assert version[0].isdigit(), f"{name} {version}"
        assert lock["packages"][f"node_modules/{name}"]["version"] == version
    for name, entry in lock["packages"].items():
        assert "resolved" not in entry
        assert not name or entry["integrity"].startswith("sha512-")


def test_licences_of_what_is_bundled_are_kept():
    licences = (STATIC / "LICENSES.txt").read_text()
    package = json.loads((PAGE / "package.json").read_text())
    for name, version in package["dependencies"].items():
        assert f"{name} {version} (" in licences
    assert licences.count("Permission to use, copy, modify") >= len(package["dependencies"])
