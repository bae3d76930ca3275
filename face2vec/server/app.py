"""The application: routes, pages and static files behind the guard, and the server that runs it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from face2vec import __version__
from face2vec.errors import Face2VecError
from face2vec.gallery.schema import FILE
from face2vec.server import api, metrics, pages, problems
from face2vec.server.access import SAFE_METHODS, Guard
from face2vec.server.service import Service
from face2vec.server.settings import Settings

STATIC = Path(__file__).parent / "static"
OPTIONS: dict[str, Any] = {
    "telemetry": dict.fromkeys(
        ("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False
    )
}
"""Newer versions of FastAPI would otherwise hand requests to whatever OpenTelemetry is set up."""
VERSION_HEADER = b"face2vec-version"
"""Tells the page that asked for a change which version of the gallery has it."""
STOP_SECONDS = 10
"""Time that requests have to end when the server is stopped."""


def create_app(settings: Settings, audit: logging.Logger | None = None) -> Guard:
    """The ASGI application for one gallery.

    Args:
        settings: of the service.
        audit: the log of edits; the default is the logger ``face2vec.audit``.

    Raises:
        GalleryError: the gallery cannot be opened.
    """
    service = Service(settings)

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        app.state.ending = True
        service.close()

    app = FastAPI(
        title="face2vec",
        version=__version__,
        summary="Face retrieval over a photo collection",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        **OPTIONS,
        lifespan=life,
    )
    app.state.service, app.state.ending = service, False
    app.state.audit = audit or logging.getLogger("face2vec.audit")

    def shown(request: Request, problem: problems.ProblemError) -> problems.ProblemError:
        may_see = api.may_see_paths(request)
        return problem if may_see else problem.without(str(settings.gallery))

    problems.install(app, pages.problem_page, shown)
    app.include_router(api.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/healthz", include_in_schema=False)
    def healthz() -> Response:
        return PlainTextResponse("ok")

    @app.get("/readyz", include_in_schema=False)
    def readyz() -> Response:
        try:
            if not (settings.gallery / FILE).exists():
                return PlainTextResponse("no gallery yet", 503)
            with service.reading() as now:
                now.count  # noqa: B018
        except Exception:
            return PlainTextResponse("no gallery yet", 503)
        return PlainTextResponse("ready")

    @app.get("/metrics", include_in_schema=False)
    def measured() -> Response:
        if service.engine.has_gallery:
            with service.reading() as now:
                counts = now.counts()
            metrics.FACES.set(counts.faces)
            metrics.PHOTOS.set(counts.photos)
        metrics.JOBS.set(service.jobs.is_busy)
        return Response(generate_latest(metrics.REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return Guard(_Measured(app), settings)


class _Measured:
    """Counts and times the requests of an application by route, and names what they changed."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self.state = app.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if scope["method"] not in SAFE_METHODS and scope["path"].startswith("/v1/"):
                    version = await asyncio.to_thread(self._app.state.service.version)
                    message["headers"] = [
                        *message.get("headers", ()),
                        (VERSION_HEADER, version.encode()),
                    ]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            metrics.REQUESTS.labels(route, str(status)).inc()
            metrics.SECONDS.labels(route).observe(time.monotonic() - started)


def run(settings: Settings, started: Callable[[str], object] | None = None) -> None:
    """Serve until the process is stopped.

    Args:
        settings: of the service.
        started: called with the address, token included, once it answers.

    Raises:
        GalleryError: the gallery cannot be opened.
        OSError: the address cannot be used.
        Face2VecError: the server ended before it answered.
    """
    server, listener, address = _prepared(settings)
    if started is not None:
        server.ready = lambda: started(address)
    with contextlib.closing(listener):
        server.run(sockets=[listener])
    server.check_started()


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """Serve in a thread of this process, for a ``with`` block; yields the address with the token.

    Args:
        settings: of the service.

    Raises:
        GalleryError: the gallery cannot be opened.
        OSError: the address cannot be used.
        Face2VecError: the server ended before it answered.
    """
    server, listener, address = _prepared(settings)
    answering = threading.Event()
    server.ready = answering.set

    def run_until_asked() -> None:
        try:
            server.run([listener])
        finally:
            answering.set()

    thread = threading.Thread(target=run_until_asked, name="face2vec serve")
    thread.start()
    try:
        answering.wait()
        server.check_started()
        yield address
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _prepared(settings: Settings) -> tuple[_Server, socket.socket, str]:
    """A server, the socket that it listens on, and its address with the token."""
    listener = _listener(settings.host, settings.port)
    port = listener.getsockname()[1]
    settings = replace(settings, port=port)
    app = create_app(settings)
    server = _Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            http=_protocol(settings.limits.header_seconds),
            timeout_graceful_shutdown=STOP_SECONDS,
            h11_max_incomplete_event_size=64 * 1024,
            lifespan="on",
        )
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    shown = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    return server, listener, f"http://{shown}:{port}/?token={settings.token}"


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens.

    The protocol is named, because asyncio sends small answers at once (TCP_NODELAY) only then. Else
    each answer waits 40 ms for the client to acknowledge its headers.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let another program take the address
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _protocol(seconds: float) -> type[H11Protocol]:
    """HTTP/1.1 for connections that must send the headers of each request within some seconds.

    uvicorn limits how long a connection may be idle after an answer, and not how slowly a request
    may come.
    """

    class Timed(H11Protocol):
        def __init__(self, *values: Any, **named: Any) -> None:
            super().__init__(*values, **named)
            self._late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._stop()

        def _watch(self) -> None:
            """Let the time run while headers are missing."""
            if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
                self._stop()
            elif self._late is None:
                self._late = self.loop.call_later(seconds, self._end)

        def _stop(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _end(self) -> None:
            self._late = None
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                if self.conn.trailing_data[0]:
                    self.transport.write(
                        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n"
                        b"Content-Length: 0\r\n\r\n"
                    )
                self.transport.close()

    return Timed


class _Server(uvicorn.Server):
    """Tells when it answers, and ends event streams when it is stopped."""

    ready: Callable[[], object] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.ready is not None and self.started:
            self.ready()

    def check_started(self) -> None:
        """Raise an error if the server has ended without having answered."""
        if not self.started:
            raise Face2VecError("the service ended before it answered; its log says why")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: Any = self.config.app
        app.state.ending = True
        await super().shutdown(sockets)
