"""Who may come in: tokens, cookies, host names, and what pages of other sites may not do.

`Guard` stands before the whole application. Nothing but ``/healthz``, ``/readyz`` and two static
files of the page that asks for a token is answered without one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Iterable
from typing import Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders, State
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import Message, Receive, Scope, Send

from face2vec.server import texts
from face2vec.server.problems import ProblemError
from face2vec.server.settings import Limits, Settings

READ, WRITE = "read", "write"
PUBLIC = ("/healthz", "/readyz", "/static/style.css", "/static/signed-out.js")
ASKING = ("/v1/detect", "/v1/encode", "/v1/search", "/v1/verify", "/v1/identify")
"""Paths whose POST requests change nothing."""
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), interest-cohort=()",
}


class Application(Protocol):
    """An ASGI application with a state."""

    state: State

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        ...


class Guard:
    """Refuses what may not come in, and limits what does; an ASGI application around another.

    Args:
        app: the application.
        settings: tokens, host names and limits.
    """

    def __init__(self, app: Application, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self.state = app.state
        self._rates = Rates(settings.limits.rate)
        self._cookies = {
            role: _cookie_value(token)
            for role, token in ((WRITE, settings.token), (READ, settings.read_token))
            if token is not None
        }
        self._cookie = f"face2vec_{settings.port}"
        self._hosts = {*_LOOPBACK, settings.host, *settings.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        try:
            answer = self._admitted(scope)
            if answer is not None:
                await answer(scope, receive, send)
                return
            limited = _LimitedBody(receive, self._settings.limits, Headers(scope=scope))
        except ProblemError as problem:
            await problem_response(problem, HTTPConnection(scope))(scope, receive, send)
            return
        await limited.answered(self._app, scope, send)

    def _admitted(self, scope: Scope) -> Response | None:
        """Let a request in and note its role, or give another answer, or refuse it.

        Raises:
            ProblemError: it is refused.
        """
        headers, path, method = Headers(scope=scope), str(scope["path"]), str(scope["method"])
        scope.setdefault("state", {})
        if path in PUBLIC:
            scope["state"]["role"] = None
            return None
        self._check_host(headers)
        if self._rates.is_over((scope.get("client") or ("",))[0]):
            raise ProblemError(
                429, "too many requests; wait a second", "rate-limit", {"Retry-After": "1"}
            )
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if given and method == "GET":
            return self._entry(path, [pair for pair in query if pair[0] != "token"], given[0])
        role, by_cookie = self._role(headers)
        if role is None and _bearer(headers):
            raise ProblemError(
                401,
                "the token in the header 'Authorization' is wrong; 'face2vec serve' prints the one "
                "of each start",
                "wrong-token",
                {"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )
        if role is None:
            raise ProblemError(
                401,
                "open the address with the token that 'face2vec serve' has printed, or send the "
                "header 'Authorization: Bearer TOKEN'",
                "no-token",
                {"WWW-Authenticate": "Bearer"},
            )
        if method not in SAFE_METHODS:
            if by_cookie:
                _check_same_site(headers)
            if role == READ and not path.startswith(ASKING):
                raise ProblemError(403, "this token can only read; use the other one", "read-only")
        scope["state"]["role"] = role
        scope["state"]["mark"] = hashlib.sha256(self._cookies[role].encode()).hexdigest()[:16]
        return None

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that are not this service's, which DNS rebinding would bring."""
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if name.lower() not in self._hosts:
            raise ProblemError(
                421,
                f"{host!r} is not a name of this service; allow it with --allow-host",
                "host",
                values={"host": host},
            )

    def _entry(self, path: str, query: Iterable[tuple[str, str]], token: str) -> Response:
        """Turn the token of an address into a cookie."""
        role = self._role_of_token(token)
        if role is None:
            raise ProblemError(
                401,
                "the token in the address is wrong; copy the whole address",
                "wrong-token",
                code="wrong-address",
            )
        rest = urlencode(list(query))
        # Only the path is kept, and one slash at its start, so that it stays on this site.
        answer = RedirectResponse("/" + path.lstrip("/") + (f"?{rest}" if rest else ""), 303)
        answer.set_cookie(
            self._cookie, self._cookies[role], httponly=True, samesite="strict", path="/"
        )
        return answer

    def _role(self, headers: Headers) -> tuple[str | None, bool]:
        """The role of a request, and whether a cookie says so."""
        if token := _bearer(headers):
            return self._role_of_token(token), False
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self._cookie:
                for role, known in self._cookies.items():
                    if hmac.compare_digest(known.encode(), value.encode()):
                        return role, True
        return None, False

    def _role_of_token(self, token: str) -> str | None:
        given = token.encode("utf-8", "replace")
        found = None
        for role, known in ((WRITE, self._settings.token), (READ, self._settings.read_token)):
            if known is not None and hmac.compare_digest(known.encode(), given):
                found = role
        return found


class Rates:
    """Counts requests per client address with a bucket that refills.

    Args:
        rate: requests per second, twice as many at once; None for no limit.
    """

    MOST = 10_000  # addresses that are remembered

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._buckets: dict[str, tuple[float, float]] = {}

    def is_over(self, client: str) -> bool:
        """Count a request of a client; whether it is one too many."""
        if self._rate is None:
            return False
        now = time.monotonic()
        left, then = self._buckets.pop(client, (2 * self._rate, now))
        left = min(left + (now - then) * self._rate, 2 * self._rate)
        over = left < 1
        self._buckets[client] = (left if over else left - 1, now)
        if len(self._buckets) > self.MOST:
            del self._buckets[next(iter(self._buckets))]
        return over


class _LimitedBody:
    """Receives a body up to a size and within a time."""

    def __init__(self, receive: Receive, limits: Limits, headers: Headers) -> None:
        self._receive, self._limits = receive, limits
        self._left = limits.upload_bytes
        self._until = time.monotonic() + limits.body_seconds
        self._whole = False
        self._problem: ProblemError | None = None
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limits.upload_bytes:
            raise self._too_large()

    async def answered(self, app: Application, scope: Scope, send: Send) -> None:
        """Let an application answer; if the body goes beyond a limit, that is the answer."""

        async def sending(message: Message) -> None:
            if self._problem is None:  # otherwise the application says that it got no body
                await send(message)

        try:
            await app(scope, self, sending)
        except ProblemError:
            if self._problem is None:
                raise
        if self._problem is not None:
            answer = problem_response(self._problem, HTTPConnection(scope))
            await answer(scope, self._receive, send)

    async def __call__(self) -> Message:
        if self._whole:  # what comes now is the end of the connection, which may be far off
            return await self._receive()
        try:
            async with asyncio.timeout(max(self._until - time.monotonic(), 0)):
                message = await self._receive()
        except TimeoutError:
            self._problem = ProblemError(
                408,
                f"the body did not arrive within {self._limits.body_seconds:.0f} seconds",
                headers={"Connection": "close"},
                code="slow-body",
                values={"seconds": round(self._limits.body_seconds)},
            )
            raise self._problem from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self._problem = self._too_large()
            raise self._problem
        self._whole = not message.get("more_body", False)
        return message

    def _too_large(self) -> ProblemError:
        most = self._limits.upload_bytes / 2**20
        return ProblemError(
            413,
            f"the body is larger than {most:.0f} MiB",
            "too-large",
            {"Connection": "close"},
            values={"mebibytes": round(most)},
        )


def _bearer(headers: Headers) -> str:
    """The token in the header ``Authorization``, or ""."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else ""


def _check_same_site(headers: Headers) -> None:
    """Refuse a change that a page of another site has asked for.

    Raises:
        ProblemError: it comes from another site.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if site not in (None, "same-origin") or (
        origin is not None and urlsplit(origin).netloc != headers.get("host")
    ):
        raise ProblemError(403, "a page of another site has asked for this change", "cross-site")


def _cookie_value(token: str) -> str:
    """What the cookie holds: it follows from the token, and does not give it away."""
    return hmac.new(token.encode(), b"face2vec cookie", hashlib.sha256).hexdigest()


def problem_response(problem: ProblemError, connection: HTTPConnection) -> Response:
    """The answer to a request that is refused: a page for a browser, JSON for a program."""
    is_page = "text/html" in connection.headers.get("accept", "")
    language = texts.language_asked(connection.cookies, connection.headers)
    return problem.response(language, page=is_page)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending
