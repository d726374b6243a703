import subprocess
import sys
import time

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


@pytest.mark.slow
def test_predict_help_within_five_seconds():
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "lit_attr.cli.main", "predict", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--writer.out_dir" in done.stdout
    assert time.monotonic() - started < 10  # twice what is promised: the machine of a test may be busy
