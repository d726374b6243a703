"""Serving the page on this machine."""

import errno
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from lit_attr.errors import ConfigurationError
from lit_attr.optional import require
from lit_attr.view.guard import is_loopback

_log = logging.getLogger(__name__)
DEFAULT_PORT = 8750
_LARGEST_PORT = 65535
_PATIENCE = 1  # seconds for answers that are under way when the server is stopped


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens.

    Args:
        host: An address or name of this machine.
        port: 0 for any that is free; None for the usual one, or any if that is taken.

    Raises:
        ConfigurationError: If it cannot be had.
    """
    if port is not None and not 0 <= port <= _LARGEST_PORT:
        raise ConfigurationError(f"port must be from 0 to {_LARGEST_PORT}, found {port}")
    wanted = DEFAULT_PORT if port is None else port
    try:
        family, *_, address = socket.getaddrinfo(host, wanted, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"cannot listen on {host!r}, which is no address of this machine: {error}") from error
    try:
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        if port is None and error.errno != errno.EADDRNOTAVAIL:
            return listen(host, 0)
        is_no_address = error.errno == errno.EADDRNOTAVAIL
        remedy = "expected an address of this machine" if is_no_address else "--port 0 takes one that is free"
        reason = os.strerror(error.errno or 0)
        raise ConfigurationError(f"cannot listen on port {wanted} of {host}: {reason}; {remedy}") from error


def serve(path: Path, host: str, port: int | None, tokenizer: Path | None, say: Callable[[str], None]) -> bool:
    """Serve the page of a result until it is interrupted.

    Args:
        path: Path of the result's file.
        host: Address or name to listen on.
        port: 0 for any that is free; None for the usual one, or any if that is taken.
        tokenizer: A `tokenizer.json`; None for the one that the result's provenance leads to.
        say: Is called with the page's address as soon as it can be opened.

    Returns:
        Whether threads are left that compute answers, for which the interpreter would wait.

    Raises:
        ConfigurationError: If the libraries are not installed, the port is taken, or there is no such tokenizer.
        StorageError: If the file is missing or damaged.
    """
    uvicorn = require("uvicorn", "view")
    require("starlette", "view")
    from lit_attr.view.app import create_app
    from lit_attr.view.current_result import CurrentResult

    if not is_loopback(host):
        _log.warning(
            "lit-attr: warning: listening on %s, not only on this machine: whoever reaches it can read the result", host
        )
    # Answers are few numbers each: with more threads, those that wait for work take the time of those that do it.
    torch.set_num_threads(1)
    with listen(host, port) as listening:
        current = CurrentResult(path, tokenizer)
        config = uvicorn.Config(
            create_app(current, host),
            log_level="critical",  # says otherwise that answers were under way when it was stopped
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=_PATIENCE,
            server_header=False,
        )
        say(_address(listening))
        with suppress(KeyboardInterrupt):  # it is passed on when everything has been closed
            uvicorn.Server(config).run(sockets=[listening])
        return current.is_busy


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"
