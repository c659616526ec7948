"""Who may ask, and what every answer says to browsers."""

from __future__ import annotations

import hmac
import ipaddress
import time
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memlab.server.metrics import Metrics
from memlab.server.refusals import refusal

READING = ("GET", "HEAD", "OPTIONS")
METHODS = (*READING, "POST", "PATCH", "DELETE")
MAX_REQUESTS = 512
"""Requests that are under way at a time; more are told to come again."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Args:
        token: must be told to change the memory; None on an address that is the machine's own alone.
    """

    token: str | None

    def refusal(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        """Status and reason if a request is refused.

        Without a token, what is at the machine may ask, and web sites may not: neither by a form or a script of theirs
        (Origin), nor by a name of theirs that is made to mean this machine (Host).
        """
        if self.token is None:
            host, origin = headers.get("host", ""), headers.get("origin")
            if not is_loopback(_without_port(host)):
                return 403, f"host={host}: must be asked as localhost or 127.0.0.1"
            if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
                return 403, f"origin={origin}: other web sites may not ask"
            return None
        if method in READING or path == "/predict":
            return None
        told = headers.get("authorization", "")
        if not hmac.compare_digest(told.encode(), f"Bearer {self.token}".encode()):
            return 401, "changes need the header Authorization: Bearer TOKEN, with the token of this server"
        return None


def is_loopback(host: str) -> bool:
    """Whether an address is the machine's own alone.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Refuses who may not ask, counts requests, and adds headers to every answer.

    Args:
        app: answers.
        access: who may ask.
        metrics: is told of each request.
    """

    def __init__(self, app: ASGIApp, *, access: Access, metrics: Metrics) -> None:
        self._app = app
        self._access = access
        self._metrics = metrics
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, endless = time.perf_counter(), 500, _is_endless(Headers(scope=scope))

        async def come() -> Message:
            nonlocal endless
            message = await receive()
            endless = endless and message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                if endless:
                    headers["Connection"] = "close"
            await send(message)

        self._under_way += 1
        try:
            await self._answer(scope, come, answer)
        finally:
            self._under_way -= 1
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.request(method, route, status, time.perf_counter() - start)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._access.refusal(scope["method"], scope["path"], Headers(scope=scope))
        if refused is None and self._under_way > MAX_REQUESTS:
            refused = 503, "too many requests at a time; try again later"
        if refused is None:
            await self._app(scope, receive, send)
            return
        headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}.get(refused[0])
        await refusal(*refused, headers)(scope, receive, send)


def _is_endless(headers: Headers) -> bool:
    """Whether the end of a body is not to be waited for, to answer the next request on the same connection."""
    told = headers.get("content-length", "0")
    return "transfer-encoding" in headers or not told.isdecimal() or len(told) > 9


def _without_port(host: str) -> str:
    """The name in a Host header.

    >>> [_without_port(host) for host in ("localhost:8000", "[::1]:8000", "127.0.0.1")]
    ['localhost', '::1', '127.0.0.1']
    """
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
