"""Fixtures that all tests share."""

import os
import signal
from pathlib import Path

import pytest

from tests.shapes import check_signatures

# The rooms that compute.
check_signatures("lit_attr.attribution", "lit_attr.decomposition", "lit_attr.harvest")

# The tensors of most tests are tiny: threads would only wait for each other, and for other processes of the test.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Lightning calls jsonargparse by a name that the newest release deprecates.
os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"

# What a shell starts in the background does not hear Ctrl-C; tests send it to themselves and to their processes.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[2] / "shared" / "fixtures"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Runs and results of the other implementation; absent outside the project's workshop."""
    if not SHARED.is_dir():
        pytest.skip("fixtures of the other implementation are not here (../shared/fixtures)")
    return SHARED


@pytest.fixture(autouse=True)
def _own_output_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes anyone's real results."""
    monkeypatch.setenv("LIT_ATTR_OUT_DIR", str(tmp_path / "out"))
    monkeypatch.delenv("SPD_OUT_DIR", raising=False)
    monkeypatch.delenv("PARAM_DECOMP_OUT_DIR", raising=False)
    # Nor does it log in anywhere, or reach a server that it did not start.
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def pytest_configure(config: pytest.Config) -> None:
    # Kernels are interpreted, but for the tests on a GPU alone; Triton asks when it is imported.
    if config.getoption("markexpr") != "gpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--forbid-skips", action="store_true", help="a skipped test is a failure")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> object:
    report = yield
    if report.skipped and item.config.getoption("--forbid-skips") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is forbidden here: {report.longrepr}"
    return report
