"""A server of the page in a thread, and questions to it."""

import json
import threading
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlencode

import uvicorn

from lit_attr.view.app import create_app
from lit_attr.view.current_result import CurrentResult
from lit_attr.view.serve import listen


class Page:
    """A served page."""

    def __init__(self, port, current):
        self.port = port
        self.current = current
        self.address = f"http://127.0.0.1:{port}/"

    def request(self, path, method="GET", **headers):
        """Status, headers and body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def ask(self, question, **parameters):
        """Status and content of a question."""
        status, _, body = self.request(f"/api/{question}?{urlencode(parameters, doseq=True)}")
        return status, json.loads(body)

    def answer(self, question, **parameters):
        status, content = self.ask(question, **parameters)
        assert status == 200, content
        return content["answer"]

    def error(self, question, **parameters):
        status, content = self.ask(question, **parameters)
        assert 400 <= status < 500, (status, content)
        return content["error"]


@contextmanager
def served(path, tokenizer=None, host="127.0.0.1"):
    """The page of a result, served until the end of the block."""
    current = CurrentResult(path, tokenizer)
    with listen(host, 0) as listening:
        config = uvicorn.Config(create_app(current, host), log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Page(listening.getsockname()[1], current)
        finally:
            server.should_exit = True
            thread.join()
