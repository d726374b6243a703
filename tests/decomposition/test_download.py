import os
import subprocess
import sys

import pytest
import torch
import wandb
import yaml

from lit_attr.decomposition import download
from lit_attr.decomposition.load import load_run
from lit_attr.errors import RunFormatError, RunNotFoundError
from tests.decomposition.wandb_server import wandb_server
from tests.toys import write_run

RUN, TARGET = "goodfire/spd/s-1234abcd", "goodfire/spd/t-9d2b8f02"


@pytest.fixture(autouse=True)
def _no_network():
    """Here there is one: a server on this machine, and nothing else that would answer."""


@pytest.fixture
def runs(tmp_path):
    """A decomposition run and its target's pretraining run, as wandb holds them."""
    folder = write_run(tmp_path / "made")
    config = yaml.safe_load((folder / "final_config.yaml").read_text())
    config["pretrained_model_name"] = f"wandb:{TARGET}"
    return {
        RUN: {
            "final_config.yaml": yaml.safe_dump(config).encode(),
            "model_2.pth": b"an older checkpoint",
            "model_10.pth": (folder / "model_10.pth").read_bytes(),
            "wandb-summary.json": b"{}",
        },
        TARGET: {
            "final_config.yaml": b"{}",
            "model_config.yaml": (folder / "model_config.yaml").read_bytes(),
            "tokenizer.json": b"{}",
            "model_step_3.pt": b"older",
            "model_step_20.pt": b"newest",
        },
    }


@pytest.fixture
def server(runs, monkeypatch):
    with wandb_server(runs) as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setattr(download, "_PAUSES", (0.01, 0.01))
        yield running
        wandb.teardown()  # the client's service process would outlive the server


@pytest.fixture
def root(tmp_path):
    return tmp_path / "out"


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_run_and_its_target_are_downloaded_into_the_cache_once(server, root, tmp_path):
    run = load_run("s-1234abcd")
    assert files(root / "runs" / "spd-s-1234abcd") == ["final_config.yaml", "model_10.pth"]
    target = root / "pretrain_cache" / "spd-t-9d2b8f02"
    assert files(target) == ["final_config.yaml", "model_config.yaml", "model_step_20.pt", "tokenizer.json"]
    assert (target / "model_step_20.pt").read_bytes() == b"newest"
    expected = load_run(tmp_path / "made").model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in run.model.state_dict().items())
    assert run.run_id == "s-1234abcd"
    asked = list(server.downloads)
    load_run(f"https://wandb.ai/{RUN.replace('/s-', '/runs/s-')}?x=1")
    assert server.downloads == asked


def test_files_that_are_there_are_kept_and_missing_ones_fetched(server, root):
    folder = root / "runs" / "spd-s-1234abcd"
    folder.mkdir(parents=True)
    (folder / "final_config.yaml").write_bytes(server.runs[RUN]["final_config.yaml"])
    load_run("s-1234abcd")
    assert "model_10.pth" in server.downloads
    assert server.downloads.count("final_config.yaml") == 1  # the target's


def test_a_failed_download_is_tried_again(server):
    server.failures = 2
    load_run("s-1234abcd")
    assert server.downloads[:3] == ["model_10.pth"] * 3


def test_a_download_that_keeps_failing_leaves_no_file(server, root):
    server.failures = 100
    with pytest.raises(
        RunNotFoundError, match=r"no cache holds the run goodfire/spd/runs/s-1234abcd \(looked in .*cannot"
    ):
        load_run("s-1234abcd")
    assert files(root / "runs" / "spd-s-1234abcd") == []


def test_no_such_run(server):
    with pytest.raises(
        RunNotFoundError, match=r"cannot download the run goodfire/spd/runs/s-99999999 from wandb: .*find run"
    ):
        load_run("s-99999999")
    assert server.downloads == []


def test_refused_login(server):
    server.accepts_login = False
    with pytest.raises(RunNotFoundError, match=r"no valid login \(.*invalid credentials.*run `wandb login`"):
        load_run("s-1234abcd")


def test_no_login(server, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RunNotFoundError, match=r"no valid login \(No API key configured"):
        load_run("s-1234abcd")


def test_no_network(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(download, "_PAUSES", ())
    monkeypatch.setattr(download, "_TIMEOUT", 1)
    with pytest.raises(RunNotFoundError, match="Without network, put the run's files into the cache by hand"):
        load_run("s-1234abcd")


@pytest.mark.parametrize(
    ("path", "missing", "message"),
    [
        (
            RUN,
            "final_config.yaml",
            r"runs/s-1234abcd on wandb has no final_config\.yaml or .*; it has",
        ),
        (TARGET, "model_config.yaml", r"run goodfire/spd/runs/t-9d2b8f02 on wandb has no model_config\.yaml; it has"),
    ],
)
def test_a_run_without_its_files(server, path, missing, message):
    del server.runs[path][missing]
    with pytest.raises(RunFormatError, match=message):
        load_run("s-1234abcd")


def test_files_whose_names_lead_elsewhere(server, root):
    server.runs[TARGET]["../../../model_config.yaml"] = server.runs[TARGET].pop("model_config.yaml")
    with pytest.raises(RunFormatError, match=r"whose name leads elsewhere: '\.\./\.\./\.\./model_config\.yaml'"):
        load_run("s-1234abcd")
    assert not list(root.parent.glob("*.yaml"))


@pytest.mark.slow
def test_of_several_processes_one_downloads_and_the_others_wait(server):
    script = "from lit_attr.decomposition.load import load_run; print(load_run('s-1234abcd').weights_digest)"
    workers = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=os.environ.copy())
        for _ in range(3)
    ]
    digests = {worker.communicate()[0] for worker in workers}
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert len(digests) == 1
    assert len(server.downloads) == 6  # two files of the run, four of its target
