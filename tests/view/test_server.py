"""What the server lets through, and what it does when the file under it changes."""

import json
import logging
import os
import socket
import threading

import pytest

from lit_attr.errors import ConfigurationError
from lit_attr.query.explorer import Explorer
from lit_attr.query.index_build import build_index
from lit_attr.query.index_file import index_path
from lit_attr.view.guard import is_loopback
from lit_attr.view.serve import DEFAULT_PORT, listen, serve
from tests.storage.examples import random_storage
from tests.view.serving import served


def test_the_page_is_there_and_needs_nothing_else(page):
    status, headers, body = page.request("/")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    for name in (b"app.js", b"style.css", b"icon.svg"):
        assert name in body
        status, headers, content = page.request(f"/{name.decode()}")
        assert (status, headers["cache-control"]) == (200, "no-store")
        assert b"//cdn" not in content
    assert page.request("/", "HEAD")[0] == 200


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/", "/static/app.js", "/../app.py", "/%2e%2e/app.py", "/page/package.json"]
)
def test_nothing_else_is_served(page, path):
    status, _, body = page.request(path)
    assert status == 404
    assert "error" in json.loads(body)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_it_only_reads(page, method):
    status, _, body = page.request("/api/about", method)
    assert status == 405
    assert "only GET" in json.loads(body)["error"]


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1:{}", True),
        ("localhost:{}", True),
        ("[::1]:{}", True),
        ("LOCALHOST", True),
        ("evil.example:{}", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("192.168.0.7:{}", False),
        ("[", False),
        ("", False),
    ],
)
def test_other_names_are_refused(page, host, is_ours):
    status, _, body = page.request("/api/about", Host=host.format(page.port))
    assert status == (200 if is_ours else 403)
    assert is_ours or "is not this server" in json.loads(body)["error"]


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 200), ("none", 200), ("cross-site", 403), ("same-site", 403)]
)
def test_questions_of_other_sites_pages_are_refused(page, site, status):
    assert page.request("/api/about", **{"Sec-Fetch-Site": site})[0] == status
    assert page.request("/", **{"Sec-Fetch-Site": site})[0] == 200  # a link to the page


def test_where_more_is_listened_on_addresses_are_let_through(file):
    with served(file, host="0.0.0.0") as page:
        assert page.request("/api/about", Host="192.168.0.7:80")[0] == 200
        assert page.request("/api/about", Host=socket.gethostname())[0] == 200
        assert page.request("/api/about", Host="evil.example")[0] == 403


def test_loopback():
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.7", "example.org", "")] == [False] * 5


def test_a_taken_port():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigurationError, match=f"cannot listen on port {port} of 127.0.0.1: .*--port 0 takes one"
        ):
            listen("127.0.0.1", port)


def test_the_usual_port_or_a_free_one():
    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        ports = {first.getsockname()[1], second.getsockname()[1]}
        assert len(ports) == 2
    with listen("127.0.0.1", 0) as other:
        assert other.getsockname()[1] not in (0, DEFAULT_PORT)


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", 70000), ("127.0.0.1", -1), ("no such host", 0), ("203.0.113.7", 0)]
)
def test_what_cannot_be_listened_on(host, port):
    with pytest.raises(ConfigurationError, match=r"port must be from 0 to 65535|cannot listen on"):
        listen(host, port)


def test_a_warning_where_others_reach_it(file, caplog, monkeypatch):
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    said = []
    with caplog.at_level(logging.WARNING):
        serve(file, "0.0.0.0", 0, None, said.append)
    assert "listening on 0.0.0.0, not only on this machine" in caplog.text
    assert said[0].startswith("http://127.0.0.1:")
    caplog.clear()
    serve(file, "127.0.0.1", 0, None, said.append)
    assert not caplog.text


def test_a_result_that_is_replaced(own_page, own_file):
    before = own_page.answer("neighbours", key="output:1")
    _, first = own_page.ask("about")
    assert first["result"]["state"] == "same"
    random_storage(seed=1, provenance={"run_reference": "demo"}).save(own_file)
    _, content = own_page.ask("neighbours", key="output:1")
    assert content["result"] == {"id": first["result"]["id"], "state": "replaced"}
    assert content["answer"] == before
    _, renewed = own_page.ask("about", renew=1)
    assert renewed["result"]["state"] == "same"
    assert renewed["result"]["id"] != first["result"]["id"]
    assert own_page.answer("neighbours", key="output:1") != before


def test_a_result_that_is_removed_or_replaced_by_something_else(own_page, own_file):
    before = own_page.answer("neighbours", key="output:1")
    own_file.unlink()
    assert own_page.ask("about")[1]["result"]["state"] == "removed"
    assert "no result at" in own_page.error("about", renew=1)
    own_file.write_text("no")
    assert "no result of a harvest" in own_page.error("about", renew=1)
    assert own_page.answer("neighbours", key="output:1") == before


def test_a_result_that_is_changed_in_place_is_not_read(own_page, own_file):
    with own_file.open("r+b") as opened:
        opened.truncate(100)
    status, content = own_page.ask("neighbours", key="output:1")
    assert (status, content["result"]["state"]) == (409, "changed")
    assert "was changed in place since it was opened" in content["error"]
    os.utime(own_file)
    assert own_page.ask("subgraph", key="output:1")[0] == 409


def test_an_index_that_is_damaged_in_place_is_not_read(own_page, own_file, caplog):
    build_index(own_file)
    before = own_page.answer("neighbours", key="output:1")
    assert own_page.answer("about")["indexed"]
    with index_path(own_file).open("r+b") as opened:
        opened.truncate(100)  # reading a page of it that is no longer there would kill the process
    assert own_page.answer("neighbours", key="output:1") == before
    assert own_page.answer("about")["indexed"] is False
    assert "does not end as an index does" in caplog.text


def test_an_index_that_is_damaged_after_its_result_was_replaced(own_page, own_file):
    build_index(own_file)
    before = own_page.answer("neighbours", key="output:1")
    random_storage(seed=1).save(own_file)
    with index_path(own_file).open("r+b") as opened:
        opened.truncate(100)
    assert own_page.answer("neighbours", key="output:1") == before


def test_an_index_that_is_written_over_while_it_is_read(own_page, own_file):
    build_index(own_file)
    whole = index_path(own_file).read_bytes()
    expected = own_page.answer("neighbours", key="output:1")
    wrong, is_over = [], threading.Event()

    def ask():
        while not is_over.is_set():
            if own_page.answer("neighbours", key="output:1") != expected:
                wrong.append(1)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    for number in range(100):
        index_path(own_file).write_bytes(whole[: len(whole) * (number % 4) // 4])
        index_path(own_file).write_bytes(whole)
    is_over.set()
    for asker in askers:
        asker.join()
    assert not wrong
    assert own_page.answer("about")["indexed"]


def test_a_result_that_is_replaced_while_it_is_opened(own_page, own_file, monkeypatch):
    before = own_page.answer("neighbours", key="output:1")

    class Replacing(Explorer):
        def __init__(self, path, tokenizer):
            super().__init__(path, tokenizer)
            random_storage(seed=2).save(path)

    random_storage(seed=1).save(own_file)
    with monkeypatch.context() as patch:
        patch.setattr("lit_attr.view.viewed_result.Explorer", Replacing)
        assert f"{own_file} was replaced while it was opened" in own_page.error("about", renew=1)
    assert own_page.answer("neighbours", key="output:1") == before
    own_page.answer("about", renew=1)
    assert own_page.answer("neighbours", key="output:1") != before


def test_renewing_what_is_the_same_changes_nothing(page):
    result = page.current.result
    page.answer("about", renew=1)
    assert page.current.result is result


def test_many_at_once(page):
    """Of two tabs each gets the answers to its own questions."""
    expected = {key: page.answer("neighbours", key=key) for key in ("output:1", "0.mlp.up:2", "embed:3")}
    wrong = []

    def tab(key):
        for _ in range(10):
            if page.answer("neighbours", key=key) != expected[key]:
                wrong.append(key)

    tabs = [threading.Thread(target=tab, args=(key,)) for key in expected for _ in range(2)]
    for one in tabs:
        one.start()
    for one in tabs:
        one.join()
    assert not wrong


def test_an_address_of_another_machine():
    with pytest.raises(ConfigurationError, match=r"port 8750 of 192\.0\.2\.1: .*expected an address of this machine$"):
        listen("192.0.2.1", None)
