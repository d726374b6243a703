"""Processes inside SLURM allocations; what their variables are was recorded from SLURM 22.05."""

import os

import pytest
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

from lit_attr.errors import ConfigurationError
from lit_attr.harvest.allocation import slurm_correction

JOB = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"}
RANK = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
STEP = {**RANK, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}
SHELL = {**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PTY_PORT": "37653"}
ONE = {"SLURM_NTASKS": "1"}


@pytest.fixture
def inside(monkeypatch):
    """Puts this process into an allocation."""
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)

    def enter(variables, *, name="train", has_terminal=False):
        for variable, value in {**variables, "SLURM_JOB_NAME": name}.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setattr(os, "isatty", lambda _: has_terminal)

    return enter


NAMES = pytest.mark.parametrize("name", ["train", "bash", "interactive"])


@NAMES
@pytest.mark.parametrize("has_terminal", [True, False])
@pytest.mark.parametrize(
    "variables",
    [JOB, {**JOB, **ONE}, {**JOB, **RANK}, {**JOB, **SHELL}, {**JOB, **ONE, **SHELL}],
    ids=["salloc", "salloc -n1", "batch script without srun", "shell of a step", "srun --pty"],
)
def test_a_process_by_itself(inside, name, has_terminal, variables, caplog):
    caplog.set_level("INFO", logger="lit_attr")
    inside(variables, name=name, has_terminal=has_terminal)
    assert isinstance(slurm_correction(1), LightningEnvironment)
    assert "job 7: this process was not started by srun, and harvests as on a machine without SLURM" in caplog.text
    with pytest.raises(ConfigurationError, match=r"trainer\.num_nodes is 2, but this process was not started by srun"):
        slurm_correction(2)


def test_the_first_of_several_shells(inside):
    """`srun --pty -n 2` gives the terminal to one, and the others end."""
    inside({**JOB, **SHELL, "SLURM_STEP_NUM_TASKS": "2"}, has_terminal=True)
    assert isinstance(slurm_correction(1), LightningEnvironment)


@NAMES
@pytest.mark.parametrize("pty", [{}, {"SLURM_PTY_PORT": "37653"}], ids=["srun", "srun from the shell of a step"])
def test_processes_that_srun_started_belong_together(inside, name, pty):
    """Also in an interactive allocation, where Lightning would take each to be by itself."""
    inside({**JOB, **STEP, **pty}, name=name)
    correction = slurm_correction(1)
    assert SLURMEnvironment.detect() == (name == "train")
    assert correction is None if name == "train" else isinstance(correction, SLURMEnvironment)
    assert slurm_correction(2) is None or name != "train"


@pytest.mark.parametrize(
    "variables",
    [{}, {**JOB, **ONE, **RANK}, {**JOB, **ONE, **STEP, "SLURM_STEP_NUM_TASKS": "1"}],
    ids=["no SLURM", "batch script of one task", "a worker of an array"],
)
def test_nothing_to_correct(inside, variables):
    inside(variables)
    assert slurm_correction(1) is None


def test_torchrun_inside_an_allocation(inside, monkeypatch):
    inside(JOB)
    for name in ("RANK", "GROUP_RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "0")
    assert slurm_correction(2) is None
