"""Who is not the explorer's own page gets nothing from a running explorer: other pages in the browser, odd requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.explorer.conftest import Server
from tests.explorer.test_guard import PATHS

TRY = """async address => {
    const asked = [["GET"], ["POST"], ["PUT", "no-cors"], ["GET", "cors"]].map(async ([method, mode]) => {
        const how = {method, mode: mode || "no-cors", credentials: "include"};
        try { return await (await fetch(`http://${address}/`, how)).text(); } catch (error) { return ""; }
    });
    const opened = new Promise(done => {
        const socket = new WebSocket(`ws://${address}/ws?session_id=s_123456`);
        socket.onopen = () => done("open");
        socket.onerror = () => done("");
    });
    for (const [tag, where] of [["iframe", "src"], ["script", "src"], ["img", "src"], ["object", "data"]])
        document.body.append(Object.assign(document.createElement(tag), {[where]: `http://${address}/`}));
    const got = [...await Promise.all(asked), await opened];
    await new Promise(done => setTimeout(done, 300));
    return got;
}"""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A page of another server on this machine, to which cookies of this machine go too."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><body>")

        def log_message(self, *given: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_page_of_elsewhere_gets_nothing(chromium: Any, explorer: Server, elsewhere: str, name: str) -> None:
    context = chromium.new_context()
    own = context.new_page()
    own.goto(explorer.address)  # the browser has the cookie now
    answers: list[tuple[str, int]] = []
    other = context.new_page()
    other.on("response", lambda answer: answers.append((answer.url, answer.status)))
    other.goto(elsewhere)
    assert not any(other.evaluate(TRY, f"{name}:{explorer.port}"))
    asked = [status for url, status in answers if f":{explorer.port}/" in url]
    assert len(asked) >= 2  # the browser itself keeps others back
    assert set(asked) == {403}
    context.close()


def status_of(explorer: Server, path: str, headers: dict[str, str]) -> int:
    """Of a request that no client has tidied up."""
    connection = HTTPConnection("127.0.0.1", explorer.port, timeout=30)
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    for header, value in headers.items():
        connection.putheader(header, value)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_running_server_refuses_odd_requests(explorer: Server) -> None:
    token = explorer.address.split("token=")[1]
    good = {"Host": f"127.0.0.1:{explorer.port}", "Cookie": f"dynamics-{explorer.port}={token}"}
    assert status_of(explorer, "/", good) == 200
    for headers in (
        {**good, "Host": f"evil.example:{explorer.port}"}, {**good, "Host": "127.0.0.1"}, {**good, "Origin": "null"},
        {**good, "Origin": "http://evil.example"}, {**good, "Sec-Fetch-Site": "cross-site"}, {"Host": good["Host"]},
        {**good, "Cookie": f"dynamics-{explorer.port}=x"},
    ):  # fmt: skip
        assert status_of(explorer, "/", headers) == 403, headers
    for path in PATHS:
        plain = path.replace("\\", "%5c").replace("\0", "%00")
        assert status_of(explorer, plain, good) in (400, 403), path
