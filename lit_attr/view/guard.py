"""What every request must be like, and what every response says to the browser."""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "HEAD")
# Whose page a browser says that it asks for: this server's own, or none, for an address that someone typed.
_SITES = ("same-origin", "none")
_HEADERS = {
    # Nothing is loaded from elsewhere, and nothing runs that did not come from here.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, and cannot be reached from another."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Lets through what reads, and names this machine by an address of it.

    A page of someone else's may let its own name lead to this machine, and then read what is served here: its requests
    carry that name.

    Args:
        app: What answers.
        host: What is listened on. On the loopback interface only its names are let through; else every address, and
            this machine's names.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._is_local = is_loopback(host)
        self._names = {"localhost"} if self._is_local else {"localhost", host, socket.gethostname(), socket.getfqdn()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        name = headers.get("host", "")
        app = self._app
        if scope["method"] not in _METHODS:
            app = JSONResponse({"error": f"only GET is answered here, found {scope['method']}"}, 405)
        elif not self._is_ours(name):
            app = JSONResponse({"error": f"the host {name!r} is not this server: ask for it by its address"}, 403)
        elif scope["path"].startswith("/api/") and headers.get("sec-fetch-site", "none") not in _SITES:
            app = JSONResponse({"error": "questions are answered to the page of this server, not to other sites"}, 403)
        await app(scope, receive, send_with_headers)

    def _is_ours(self, name: str) -> bool:
        try:
            host = urlsplit(f"//{name}").hostname or ""
        except ValueError:
            return False
        if host in {name.lower() for name in self._names}:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or not self._is_local
