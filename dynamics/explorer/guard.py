"""Who may talk to the explorer: this machine's browser, from the explorer's own page, with the token."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, unquote

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws: data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Guard:
    """Stands before every route, the websocket's too, and answers 403 to whatever it does not know.

    A page elsewhere that learned the port (by another origin, or by a name that it points at this machine) has neither
    the right ``Host`` nor the right ``Origin``; another user of this machine has no token.
    """

    def __init__(self, app: App, port: int, token: str) -> None:
        self.app = app
        self.token = token
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self.cookie = f"dynamics-{port}"  # cookies know no ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if reason := self._stranger(scope, headers):
            return await _refused(scope, send, reason)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]
        if scope["type"] == "http" and self._is_token(given):
            return await _welcomed(send, f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict")
        if not self._is_token(_cookie(headers.get("cookie", ""), self.cookie)):
            return await _refused(scope, send, "bad token")
        # Compressing what does not leave this machine would take longer than anything else here.
        plain = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
        await self.app({**scope, "headers": plain}, receive, _hardened(send))
        return None

    def _stranger(self, scope: Scope, headers: dict[str, str]) -> str | None:
        if [name for name, _ in scope["headers"]].count(b"host") != 1 or headers["host"] not in self.hosts:
            return "bad Host"
        if "origin" in headers and headers["origin"] not in {f"http://{host}" for host in self.hosts}:
            return "bad Origin"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "bad Origin"
        return "bad path" if _wanders(scope.get("raw_path", b"").decode("latin-1"), scope["path"]) else None

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _wanders(*paths: str) -> bool:
    """Whether a path, however often it was quoted, leaves its folder or is no plain path."""
    for path in paths:
        for _ in range(4):
            path = unquote(path)
        if any(sign in path for sign in ("..", "\\", "//", "#", "%", "\0")):
            return True
    return False


async def _refused(scope: Scope, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4403, "reason": reason})
        return
    await _answered(send, 403, f"403 {reason}\n", [])


async def _welcomed(send: Send, cookie: str) -> None:
    """The token goes into a cookie and out of the address."""
    await _answered(send, 303, "", [(b"location", b"/"), (b"set-cookie", cookie.encode())])


async def _answered(send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]]) -> None:
    plain = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": [*plain, *HEADERS, *headers]})
    await send({"type": "http.response.body", "body": text.encode()})


def _hardened(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [pair for pair in message.get("headers", []) if not pair[0].startswith(b"access-control-")]
            message = {**message, "headers": [*own, *HEADERS]}
        await send(message)

    return sent
