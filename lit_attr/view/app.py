"""The application behind the page: the page itself, and answers as JSON."""

import json
import logging
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route

from lit_attr.errors import EdgeNotFoundError, LitAttrError, StorageError
from lit_attr.view.current_result import CurrentResult
from lit_attr.view.guard import Guard
from lit_attr.view.parameters import Parameters
from lit_attr.view.questions import QUESTIONS, UNLOCKED

_log = logging.getLogger(__name__)
_PAGE = "index.html"
_FILES = (_PAGE, "app.js", "style.css", "icon.svg")
_MISTAKE, _UNKNOWN, _UNREADABLE, _OUR_MISTAKE = 400, 404, 409, 500


def create_app(current: CurrentResult, host: str) -> Guard:
    """The application.

    Args:
        current: The result that is shown.
        host: Address or name that is listened on.
    """
    folder = Path(str(files("lit_attr.view") / "static"))

    def file(request: Request) -> FileResponse:
        return FileResponse(folder / (request.url.path.strip("/") or _PAGE))

    def answer(request: Request) -> _Json:
        with current.answering():
            return _answer(current, request)

    routes = [Route(f"/{name}", file) for name in ("", *_FILES)]
    routes.append(Route("/api/{question}", answer))
    return Guard(Starlette(routes=routes, exception_handlers={HTTPException: _no_page}), host)


class _Json(JSONResponse):
    """Characters of paths and tokens that are none in UTF-8 are escaped."""

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - as Starlette has it
        return json.dumps(content, allow_nan=False).encode("ascii")


def _answer(current: CurrentResult, request: Request) -> _Json:
    """An answer, or an error in words, and what became of the file; runs in a thread of its own."""
    name, parameters = request.path_params["question"], Parameters(request.query_params)
    if name not in QUESTIONS:
        return _Json({"error": f"no question {name!r}; there are {', '.join(QUESTIONS)}"}, _UNKNOWN)

    def reply(content: dict[str, Any], status: int = 200) -> _Json:
        about = {"id": current.result.id, "state": current.result.state}
        return _Json({**content, "result": about}, status)

    try:
        if parameters.flag("renew"):
            current.renew()
        result = current.readable()
        with nullcontext() if name in UNLOCKED else result.lock:
            answer = QUESTIONS[name](result, parameters)
        return reply({"answer": answer})
    except LitAttrError as error:
        return reply({"error": str(error)}, _status_of(error))
    except Exception as error:  # whatever it is, the page must be able to show it
        _log.exception("%s failed", request.url)
        return reply({"error": f"a mistake in lit-attr itself: {type(error).__name__}: {error}"}, _OUR_MISTAKE)


def _status_of(error: LitAttrError) -> int:
    if isinstance(error, StorageError):
        return _UNREADABLE
    return _UNKNOWN if isinstance(error, EdgeNotFoundError) else _MISTAKE


def _no_page(request: Request, error: Exception) -> _Json:
    return _Json({"error": f"nothing is at {request.url.path}; the page is at /"}, _UNKNOWN)
