from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dynamics
from dynamics.cli import main
from dynamics.explorer.guard import Guard
from tests.explorer.conftest import hostile_folder

PORT, TOKEN = 1234, "a-token"
GOOD = {"host": f"127.0.0.1:{PORT}", "cookie": f"dynamics-{PORT}={TOKEN}"}
STRANGERS: dict[str, dict[str, str | None]] = {
    "another name for this machine": {"host": f"evil.example:{PORT}"},
    "another port": {"host": "127.0.0.1:80"},
    "no host": {"host": None},
    "another origin": {"origin": "http://evil.example"},
    "another port's page": {"origin": "http://127.0.0.1:8080"},
    "a null origin": {"origin": "null"},
    "https": {"origin": f"https://127.0.0.1:{PORT}"},
    "a request across sites": {"sec-fetch-site": "cross-site"},
    "a request from another port": {"sec-fetch-site": "same-site"},
    "no token": {"cookie": None},
    "another token": {"cookie": f"dynamics-{PORT}=b-token"},
    "an empty token": {"cookie": f"dynamics-{PORT}="},
    "the token of another explorer": {"cookie": f"dynamics-80={TOKEN}"},
    "a broken cookie": {"cookie": '=;"\x00'},
}
PATHS = [
    *("/../etc/passwd", "/assets/../../x", "/%2e%2e/x", "/%252e%252e/x", "/%25252e%25252e/x", "/assets/..%2f..%2fx"),
    *("/..\\x", "/assets/%5c..%5cx", "//etc/passwd", "/assets//etc/passwd", "/a%23b", "/a%00b", "/@file/%2e%2e/x"),
]


def answered(app: Any, kind: str, path: str, headers: dict[str, str | None], query: str = "") -> list[dict[str, Any]]:
    """What the app sends for one request."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect" if kind == "websocket" else "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    given = [(name.encode(), value.encode()) for name, value in headers.items() if value is not None]
    scope = {"type": kind, "method": "POST", "path": path, "raw_path": path.encode(), "query_string": query.encode()}
    with contextlib.suppress(StopIteration):  # nothing here waits, and a browser's loop may be running
        app({**scope, "headers": given, "http_version": "1.1", "scheme": "http"}, receive, send).send(None)
    return sent


def is_refused(sent: list[dict[str, Any]]) -> bool:
    [first, *_] = sent
    return first.get("status") == 403 or first.get("code") == 4403


class Reached(Exception):
    """The guard let a request through."""


async def inside(scope: Any, receive: Any, send: Any) -> None:
    raise Reached


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """Every route of the page, as (kind, path)."""
    pytest.importorskip("marimo", reason="no marimo: pip install -e '.[explore]'")
    from dynamics.explorer.server import guarded

    run = dynamics.open(hostile_folder(tmp_path_factory.mktemp("guarded") / "run", 2))
    return sorted(set(walked(guarded(run, PORT, TOKEN).app)))  # type: ignore[attr-defined]


def walked(app: Any, before: str = "") -> Iterator[tuple[str, str]]:
    for route in getattr(app, "routes", None) or []:
        path = before + getattr(route, "path", "")
        if hasattr(route, "endpoint"):
            yield ("websocket" if "WebSocket" in type(route).__name__ else "http"), path or "/"
        else:
            yield "http", (path or "") + "/x"
        yield from walked(getattr(route, "app", None), path)


def test_the_page_has_many_routes(routes: list[tuple[str, str]]) -> None:
    assert len(routes) > 40
    assert ("websocket", "/ws") in routes


@pytest.mark.parametrize("who", STRANGERS)
def test_every_route_refuses(who: str, routes: list[tuple[str, str]]) -> None:
    guard = Guard(inside, PORT, TOKEN)
    headers = {**GOOD, **STRANGERS[who]}
    for kind, path in routes:
        assert is_refused(answered(guard, kind, path, headers)), (kind, path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_no_path_leads_out(kind: str, path: str) -> None:
    assert is_refused(answered(Guard(inside, PORT, TOKEN), kind, path, {**GOOD}))


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("origin", [None, f"http://127.0.0.1:{PORT}", f"http://localhost:{PORT}"])
def test_the_own_page_comes_in(kind: str, origin: str | None) -> None:
    with pytest.raises(Reached):
        answered(Guard(inside, PORT, TOKEN), kind, "/assets/a.js", {**GOOD, "origin": origin})


def test_the_token_moves_from_the_address_into_a_cookie() -> None:
    [start, _] = answered(Guard(inside, PORT, TOKEN), "http", "/", {"host": GOOD["host"]}, f"token={TOKEN}")
    headers = dict(start["headers"])
    assert (start["status"], headers[b"location"]) == (303, b"/")
    assert headers[b"set-cookie"] == f"dynamics-{PORT}={TOKEN}; Path=/; HttpOnly; SameSite=Strict".encode()


def test_a_token_in_the_address_of_a_websocket_is_none() -> None:
    assert is_refused(
        answered(Guard(inside, PORT, TOKEN), "websocket", "/ws", {"host": GOOD["host"]}, f"token={TOKEN}")
    )


def test_answers_carry_a_policy_and_share_nothing() -> None:
    async def shared(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"access-control-allow-origin", b"*")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    [start] = answered(Guard(shared, PORT, TOKEN), "http", "/", {**GOOD})
    headers = dict(start["headers"])
    assert b"access-control-allow-origin" not in headers
    assert headers[b"content-security-policy"].startswith(b"default-src 'self'")


def test_without_marimo_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "marimo", None)
    assert main(["explore", str(hostile_folder(tmp_path / "run", 2)), "--no-browser"]) == 2
    assert "the explorer needs marimo: pip install 'dynamics[explore]'" in capsys.readouterr().err
