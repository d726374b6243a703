import json
import re
import signal
import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest

from lit_attr.cli.main import main
from tests.storage.examples import random_storage


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "out" / "dataset_attributions" / "s-1234abcd" / "da-20250101_000000" / "dataset_attributions.pt"
    random_storage().save(path)
    return path


@pytest.mark.slow
def test_a_run_is_served_until_it_is_interrupted(file):
    command = [sys.executable, "-m", "lit_attr.cli.main", "view", "s-1234abcd", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
            assert line.startswith(f"{file} is shown at ")
            with urlopen(f"{address}api/about") as response:
                assert json.load(response)["answer"]["file"] == str(file)
        finally:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.slow
def test_an_answer_that_takes_long_is_not_waited_for(file):
    script = (
        "import sys, time\nimport lit_attr.view.app as app\nfrom lit_attr.cli.main import main\n"
        "app.QUESTIONS['about'] = lambda *_: (print('asked', flush=True), time.sleep(1000))\n"
        f"sys.exit(main(['view', {str(file)!r}, '--port', '0']))"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())[0]
            with socket.create_connection(address.split(":")) as connection:
                connection.sendall(f"GET /api/about HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
                assert process.stdout.readline() == "asked\n"
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["s-zzzzzzzz"], "no result of 's-zzzzzzzz'"),
        (["{file}", "--port", "70000"], "port must be from 0 to 65535, found 70000"),
        (["{file}", "--tokenizer", "nowhere.json", "--port", "0"], "no tokenizer at nowhere.json"),
        (["{broken}", "--port", "0"], "no result of a harvest"),
    ],
)
def test_mistakes(file, tmp_path, capsys, arguments, message):
    (tmp_path / "broken.pt").write_text("no")
    places = {"file": file, "broken": tmp_path / "broken.pt"}
    assert main(["view", *(argument.format(**places) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("library", ["uvicorn", "starlette"])
def test_without_the_libraries(file, capsys, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    assert main(["view", str(file), "--port", "0"]) == 2
    assert f"the library '{library}' is needed here: pip install 'lit_attr[view]'" in capsys.readouterr().err


def test_help_imports_neither_torch_nor_a_server():
    script = (
        "import sys\nfrom lit_attr.cli.main import main\n"
        "try: main(['view', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'starlette', 'uvicorn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
