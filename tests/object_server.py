"""A real HTTP server that speaks S3, on the loopback, which counts requests and breaks connections.

The store itself is moto's. What answers a request can be told to break off, as a network does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "drawn",
    "AWS_SECRET_ACCESS_KEY": "not a secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
}
BUCKET = "drawn-photos"


class ObjectServer:
    """The server, with one bucket.

    Attributes:
        environment: what a process needs to reach it.
        requests: (method, key, whether it is a listing) of each request that it has got.
        broken: how many more times an object is broken off in its middle, by key.
        refused: while set, each request is answered with this status.
        listings_left: after so many listings, a listing is refused; None for no limit.
    """

    def __init__(self, port_of: Callable[[Any], int]) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._app = DomainDispatcherApplication(create_backend_app)
        self.requests: list[tuple[str, str, bool]] = []
        self.broken: dict[str, int] = {}
        self.refused: str | None = None
        self.listings_left: int | None = None
        self.environment = {
            **ENVIRONMENT,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port_of(self._answer)}",
        }
        self.client = self._client()
        self.client.create_bucket(Bucket=BUCKET)
        self.requests.clear()

    def _client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="drawn",
            aws_secret_access_key="not a secret",
            region_name="us-east-1",
        )

    def put(self, key: str, data: bytes) -> None:
        """Store an object."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self.client.delete_object(Bucket=BUCKET, Key=key)

    def read(self) -> list[str]:
        """Keys of the objects that were read since the last call, in order."""
        found = [key for method, key, listed in self.requests if method == "GET" and not listed]
        self.requests.clear()
        return found

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"].encode("latin-1").decode("utf-8")
        key = path.removeprefix(f"/{BUCKET}").removeprefix("/")
        method = environ["REQUEST_METHOD"]
        is_listing = "list-type" in environ.get("QUERY_STRING", "")
        self.requests.append((method, key, is_listing))
        refused = self.refused
        if is_listing and self.listings_left is not None:
            refused = "403 Forbidden" if self.listings_left == 0 else refused
            self.listings_left = max(self.listings_left - 1, 0)
        if refused is not None:
            start(refused, [("Content-Length", "0")])
            return [b""]
        body = self._app(environ, start)
        if method == "GET" and self.broken.get(key, 0) > 0:
            self.broken[key] -= 1
            return _half(body)
        return body


def _half(body: Iterable[bytes]) -> Iterator[bytes]:
    """Half of an answer; the connection is closed before its stated length."""
    data = b"".join(body)
    yield data[: len(data) // 2]


@contextmanager
def running() -> Iterator[ObjectServer]:
    """The server, in a thread of this process."""
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    started: list[Any] = []

    def serve(app: Any) -> int:
        server = make_server("127.0.0.1", 0, app, threaded=True)
        started.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return int(server.server_port)

    try:
        yield ObjectServer(serve)
    finally:
        for server in started:
            server.shutdown()
            server.server_close()
