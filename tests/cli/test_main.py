import os
import shlex
import subprocess
import sys

import pytest

from lit_attr import __version__
from lit_attr.cli.main import main


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "predict" in out
    assert "query" in out


def test_no_command(capsys):
    assert main([]) == 2
    assert "usage: lit-attr COMMAND" in capsys.readouterr().out


def test_unknown_command(capsys):
    assert main(["predcit"]) == 2
    assert "lit-attr: unknown command 'predcit'" in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lit_attr {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["query", "--help"], ["query", "sources", "--help"], ["--version"]])
def test_help_imports_neither_torch_nor_lightning(arguments):
    script = f"""
import sys
from lit_attr.cli.main import main
try:
    main({arguments!r})
except SystemExit as end:
    assert end.code == 0
print(sorted({{'torch', 'lightning', 'numpy'}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_lazy_names_are_all_there():
    import lit_attr

    for name in lit_attr.__all__:
        assert getattr(lit_attr, name) is not None
    assert set(dir(lit_attr)) == set(lit_attr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lit_attr.nothing  # noqa: B018


def test_reading_results_does_not_import_lightning():
    script = """
import sys
from lit_attr import AttributionRepo, DatasetAttributionStorage
print('lightning' in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def lit_attr_process(arguments, shell_suffix="", **options):
    """Run `python -m lit_attr` as a shell does, so that streams can be closed or piped."""
    command = f"{shlex.quote(sys.executable)} -m lit_attr {arguments} {shell_suffix}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, **options)


@pytest.mark.slow
def test_help_of_predict_imports_no_optional_library():
    before = os.times()
    done = lit_attr_process("predict --help", env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    after = os.times()
    assert done.returncode == 0
    assert "--writer.out_dir" in done.stdout
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"torch", "lightning.pytorch.cli", "torchmetrics.metric"} <= modules
    assert not modules & {"transformers", "matplotlib", "datasets", "pyarrow", "wandb", "pandas"}
    assert not modules & {"triton._C.libtriton", "torch._dynamo", "torch._dynamo.config", "sympy"}
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert seconds < 6  # twice what is promised: the machine of a test may be busy


@pytest.mark.parametrize("arguments", ["--help", "", "query --help", "predct"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough(arguments, unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = lit_attr_process(arguments, "| true; exit ${PIPESTATUS[0]}", env=environment)
    # Without a command, help is an error; but not where the reader has left before it came.
    assert done.returncode in {"predct": (2,), "": (0, 2)}.get(arguments, (0,))
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_closed_streams():
    done = lit_attr_process("--help", ">&-")
    assert done.returncode == 2
    assert done.stderr == "lit-attr: error: standard output is closed; `> /dev/null` drops what is said\n"
    done = lit_attr_process("predct", "2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    done = lit_attr_process("--version", "<&- 2>&-")
    assert (done.returncode, done.stdout) == (0, f"lit_attr {__version__}\n")


def test_the_walk_ends_as_commands_do(tmp_path):
    script = f"exec {sys.executable} -m lit_attr.demo.walk --out_dir {tmp_path}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"lit-attr: error: no result of the demo in {tmp_path}")
    done = subprocess.run(["bash", "-c", f"{script} >&-"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
