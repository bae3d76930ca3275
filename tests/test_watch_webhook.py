"""Signed JSON to a real server on this machine."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from face2vec.errors import SettingsError
from face2vec.watch import webhook as module
from face2vec.watch.webhook import Webhook


class Server:
    """Answers with a list of statuses, the last one for ever, and keeps what it was sent."""

    def __init__(self, *statuses: int, location: str = "") -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.changed = threading.Condition()
        left = list(statuses)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with server.changed:
                    server.got.append((self.path, dict(self.headers), body))
                    server.changed.notify_all()
                self.send_response(left.pop(0) if len(left) > 1 else left[0])
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST  # noqa: N815 - what a followed redirect would ask for

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/faces?key=s3cret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.got) >= count, timeout=60)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    made: list[Server] = []
    yield made
    for one in made:
        one.close()


def test_body_is_signed_with_the_secret(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.append(Server(204))
    monkeypatch.setenv("FACE2VEC_NOTIFY_SECRET", "pass wörd")
    hook = Webhook(servers[0].url)
    hook.send({"person": "Ada ö", "probability": 0.5})
    assert hook.close(60) == 0
    ((path, headers, body),) = servers[0].got
    assert path == "/faces?key=s3cret"
    assert json.loads(body) == {"person": "Ada ö", "probability": 0.5}
    assert headers["Content-Type"] == "application/json"
    expected = hmac.new("pass wörd".encode(), body, hashlib.sha256).hexdigest()
    assert headers["X-Face2Vec-Signature"] == f"sha256={expected}"
    assert (hook.sent, hook.failed) == (1, 0)


def test_failed_post_is_tried_again_with_the_same_body(servers: list[Server]) -> None:
    servers.append(Server(503, 429, 200))
    hook = Webhook(servers[0].url, "secret", delays=(0.01, 0.02, 0.04))
    hook.send({"n": 1})
    assert hook.close(60) == 0
    assert len(servers[0].got) == 3
    assert len({body for _, _, body in servers[0].got}) == 1
    assert (hook.sent, hook.failed) == (1, 0)


def test_post_is_given_up_after_the_last_delay(
    servers: list[Server], caplog: pytest.LogCaptureFixture
) -> None:
    servers.append(Server(500))
    hook = Webhook(servers[0].url, "secret", delays=(0.01, 0.01))
    with caplog.at_level(logging.WARNING, "face2vec"):
        hook.send({"n": 1})
        hook.send({"n": 2})
        assert hook.close(60) == 0
    assert [json.loads(body)["n"] for _, _, body in servers[0].got] == [1, 1, 1, 2, 2, 2]
    assert (hook.sent, hook.failed) == (0, 2)
    assert "status 500" in caplog.text
    assert "s3cret" not in caplog.text


def test_post_that_is_refused_is_not_repeated(servers: list[Server]) -> None:
    servers.append(Server(401))
    hook = Webhook(servers[0].url, "secret", delays=(0.01,) * 5)
    hook.send({"n": 1})
    assert hook.close(60) == 0
    assert len(servers[0].got) == 1
    assert hook.failed == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(servers: list[Server], status: int) -> None:
    servers.append(Server(200))
    servers.append(Server(status, location=servers[0].url))
    hook = Webhook(servers[1].url, "secret", delays=(0.01,))
    hook.send({"n": 1})
    assert hook.close(60) == 0
    assert (len(servers[0].got), len(servers[1].got)) == (0, 1)
    assert hook.failed == 1


def test_proxy_of_the_environment_is_not_used(
    servers: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.extend([Server(200), Server(200)])
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{servers[1].server.server_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    hook = Webhook(servers[0].url, "secret")
    hook.send({"n": 1})
    assert hook.close(60) == 0
    assert (len(servers[0].got), len(servers[1].got)) == (1, 0)


def test_server_that_comes_late_gets_the_notification(servers: list[Server]) -> None:
    servers.append(Server(200))
    gone = Server(200)
    gone.close()
    hook = Webhook(gone.url, "secret", delays=(0.01, 0.01))
    hook.send({"n": 1})
    assert hook.close(60) == 0
    assert hook.failed == 1


def test_sending_never_waits(servers: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAITING", 3)
    servers.append(Server(500))
    hook = Webhook(servers[0].url, "secret", delays=(1000.0,))
    hook.send({"n": 0})
    servers[0].wait_for(1)  # the thread now waits for its second try
    for number in range(1, 6):
        hook.send({"n": number})
    assert hook.failed == 2
    assert hook.close(0) >= 3
    hook._thread.join(60)  # the delay ends at once
    assert not hook._thread.is_alive()


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "ftp://example.org/x", "example.org", "http://", "", "http:///x"),
        *("https://example.org/a b", "https://example.org/\r\nX: y", "http://[::1", "http://a:x/"),
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="is not a URL"):
        Webhook(url, "secret")


def test_missing_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACE2VEC_NOTIFY_SECRET", raising=False)
    with pytest.raises(SettingsError, match="set the variable FACE2VEC_NOTIFY_SECRET"):
        Webhook("https://example.org/x")
