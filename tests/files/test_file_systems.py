"""What commands that write say where a real file system is read-only or full, or knows no links."""

import os
import re
import shutil
import subprocess
from contextlib import suppress

import pytest

from lit_attr.cli.main import main
from lit_attr.errors import LitAttrError, StorageError
from lit_attr.files.publish import keep, publish
from lit_attr.parts.freeze import current_generation
from lit_attr.topology.words import MERGED_FILE
from tests.harvest.runs import small_run, work
from tests.launch.standin import fake_slurm, make_repository, plan
from tests.parts.harvests import PLAN, commit, complete_harvest
from tests.toys import write_tokens

pytestmark = pytest.mark.mounts


@pytest.fixture
def disk(tmp_path):
    """Mounts a file system of 16 MB of a kind, `ext4` or `exfat`, on a folder; gives the folder."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    image, folder, used = tmp_path / "image", tmp_path / "disk", []
    folder.mkdir()

    def mount(kind):
        with image.open("wb") as file:
            file.truncate(16 << 20)
        call(f"mkfs.{kind}", *(["-q"] if kind == "ext4" else []), image)
        used.append(call("losetup", "--find", "--show", image).strip())
        call("mount.exfat-fuse" if kind == "exfat" else "mount", used[0], folder)
        return folder

    yield mount
    if used:
        call("umount", folder)
        call("losetup", "--detach", used[0])


def call(*words):
    return subprocess.run([*map(str, words)], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def actions(tmp_path, monkeypatch, capsys):
    """Everything that writes, by name: functions of a folder in which there is a harvest; each must be refused."""
    run, tokens = small_run(tmp_path / "run"), write_tokens(tmp_path / "tokens.npy", n_rows=5)
    fake_slurm(tmp_path / "bin", tmp_path / "calls")
    repository = make_repository(tmp_path / "repository")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    def command(*words):
        def do(folder):
            if main([word.format(result=folder / MERGED_FILE, folder=folder) for word in words]) == 2:
                raise LitAttrError(capsys.readouterr().err)

        return do

    def start(folder):
        from lit_attr.launch.submit import submit

        submit(plan(repository, folder, n_gpus=1))

    return {
        "predict": lambda folder: work(run, tokens, folder),
        "commit": lambda folder: commit(current_generation(folder, PLAN, 3, 10), 0),
        "freeze": lambda folder: current_generation(folder, PLAN, 2, 10),
        "merge": command("merge", "{folder}"),
        "index": command("index", "{result}"),
        "safetensors": command("export", "{result}", "--to", "safetensors"),
        "parquet": command("export", "{result}", "--to", "parquet"),
        "graphml": command("export", "{result}", "--to", "graphml", "--keys", "embed:2"),
        "plot": command("plot", "{result}", "mass", "--out", "{folder}/mass.png"),
        "submit": start,
    }


def everything_in(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder): path.read_bytes() for path in files}


@pytest.mark.parametrize("problem", ["read-only", "full"])
def test_every_writer_names_cause_place_and_remedy(disk, actions, problem):
    folder = disk("ext4")
    harvest = folder / "harvest"
    harvest.mkdir()
    complete_harvest(harvest, 3)
    actions["merge"](harvest)
    if problem == "read-only":
        call("mount", "-o", "remount,ro", folder)
    else:
        free = shutil.disk_usage(folder).free
        with (folder / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - 4096 * 2)
        with (folder / "crumbs").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(1024)):
                pass
        assert shutil.disk_usage(folder).free == 0
    before, place = everything_in(folder), f"ext4 at {folder}"
    cause, remedy = {
        "read-only": ("is mounted read-only", "choose another folder"),
        "full": ("No space left on device", "free some"),
    }[problem]
    for name, act in actions.items():
        with pytest.raises(LitAttrError) as refused:
            act(harvest)
        for part in (cause, place, remedy):
            assert part in str(refused.value), f"{name}: {refused.value}"
        assert everything_in(folder) == before, name


def test_where_there_are_no_links(disk, actions, tmp_path, capsys):
    """exFAT through FUSE has no links, nor renames that replace nothing: copies keep parts, new files are refused."""
    folder = disk("exfat")
    publish(folder / "part", lambda file: file.write(b"content"))
    with pytest.raises(PermissionError, match="Operation not permitted"):
        os.link(folder / "part", folder / "link")
    keep(folder / "part", folder / "kept")
    assert (folder / "kept").read_bytes() == b"content"
    harvest = tmp_path / "harvest"
    complete_harvest(harvest, 1)
    actions["merge"](harvest)
    refused = rf"fuseblk at {folder}\) knows neither hard links nor .* Choose a folder on another one \(LIT_ATTR"
    with pytest.raises(StorageError, match=refused):
        actions["predict"](folder)
    assert main(["plot", str(harvest), "mass", "--out", str(folder / "mass.png")]) == 2
    assert re.search(refused, capsys.readouterr().err)
    assert sorted(os.listdir(folder)) == ["kept", "part"]
