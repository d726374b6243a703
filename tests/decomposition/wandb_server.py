"""A local stand-in for the part of wandb's API that downloads use: GraphQL for runs and files, HTTP for bytes."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VIEWER = {"id": "x", "entity": "me", "username": "me", "email": "me@here", "flags": "{}", "teams": {"edges": []}}


class WandbServer(ThreadingHTTPServer):
    """Serves files of runs.

    Attributes:
        runs: Path `entity/project/id` to file name to content.
        downloads: Names of the files that were asked for, in order.
        failures: How many requests for bytes fail before the first succeeds.
        accepts_login: Whether the key of the client is known.
    """

    daemon_threads = True

    def __init__(self, runs):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs, self.downloads, self.failures, self.accepts_login = runs, [], 0, True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def _send(self, content, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/graphql":
            return self._send(b"")
        request = json.loads(body)
        variables = request.get("variables") or {}
        data = {"viewer": VIEWER if self.server.accepts_login else None}
        if re.search(r"query (Run|RunFiles)\b", request["query"]):
            path = f"{variables['entity']}/{variables['project']}/{variables['name']}"
            files = self.server.runs.get(path)
            data["project"] = {"internalId": "1", "run": None if files is None else self._run(path, files, variables)}
        self._send(json.dumps({"data": data}).encode())

    def _run(self, path, files, variables):
        wanted = variables.get("fileNames") or list(files)
        base = self.server.url
        edges = [
            {
                "cursor": str(number),
                "node": {
                    **{"id": str(number), "name": name, "sizeBytes": str(len(files[name])), "mimetype": "", "md5": ""},
                    **{"url": f"{base}/{path}/{name}", "directUrl": f"{base}/{path}/{name}"},
                    "updatedAt": "2025-01-01T00:00:00",
                },
            }
            for number, name in enumerate(files)
            if name in wanted
        ]
        return {
            **{"id": "r", "name": path.split("/")[-1], "displayName": "run", "state": "finished", "config": "{}"},
            **{"tags": [], "sweepName": None, "group": None, "jobType": None, "commit": None, "readOnly": True},
            **{
                "createdAt": "2025-01-01T00:00:00",
                "heartbeatAt": "2025-01-01T00:00:00",
                "description": "",
                "notes": "",
            },
            **{"systemMetrics": "{}", "summaryMetrics": "{}", "historyLineCount": 0, "historyKeys": None},
            **{"user": {"name": "me", "username": "me"}, "projectId": "1", "fileCount": len(files)},
            "files": {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}},
        }

    def do_GET(self):
        entity, project, run, name = self.path.lstrip("/").split("/", 3)
        self.server.downloads.append(name)
        if self.server.failures > 0:
            self.server.failures -= 1
            return self._send(b"half")
        self._send(self.server.runs[f"{entity}/{project}/{run}"][name])


@contextmanager
def wandb_server(runs) -> Iterator[WandbServer]:
    """A running server."""
    server = WandbServer(runs)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
