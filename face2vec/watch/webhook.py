"""Sends signed JSON to one URL, in a thread of its own, with retries."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import logging
import os
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import IO, Any

from face2vec.errors import SettingsError

log = logging.getLogger("face2vec")

SECRET = "FACE2VEC_NOTIFY_SECRET"
SIGNATURE = "X-Face2Vec-Signature"
DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds before each further try."""
SECONDS = 10.0
"""How long an answer may take."""
_WAITING = 1000
_AGAIN = (408, 425, 429)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error: data goes to the given URL and to no other."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        """No request."""


def signature_of(body: bytes, secret: str) -> str:
    """The value of the header that signs a body: ``sha256=`` and HMAC-SHA256 in hexadecimal."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class Webhook:
    """Posts JSON to a URL. `send` returns at once; a thread posts, one after the other.

    A body that is not accepted (an error of the connection, or status 408, 425, 429 or 5xx) is
    sent again after each of the delays. Any other answer but 2xx, and a redirect, ends it.
    No proxy of the environment is used.

    Args:
        url: http or https.
        secret: signs the bodies, see `signature_of`; None for that of the environment variable
            ``FACE2VEC_NOTIFY_SECRET``.
        delays: seconds before each further try.

    Attributes:
        sent: how many were accepted.
        failed: how many were given up.

    Raises:
        SettingsError: the URL is not one, or there is no secret.
    """

    def __init__(
        self, url: str, secret: str | None = None, *, delays: Sequence[float] = DELAYS
    ) -> None:
        self.url, self._delays = _checked(url), tuple(delays)
        self._secret = os.environ.get(SECRET, "") if secret is None else secret
        if not self._secret:
            raise SettingsError(
                f"there is no secret to sign notifications with; set the variable {SECRET} to one "
                "that the receiver knows"
            )
        self.sent = self.failed = 0
        self._bodies: queue.Queue[bytes] = queue.Queue(_WAITING)
        self._ending = threading.Event()
        handlers = _NoRedirect(), urllib.request.ProxyHandler({})
        self._opener = urllib.request.build_opener(*handlers)
        self._thread = threading.Thread(target=self._run, name="face2vec-webhook", daemon=True)
        self._thread.start()

    def send(self, values: Mapping[str, Any]) -> None:
        """Post values as JSON. If too many wait already, they are given up."""
        try:
            self._bodies.put_nowait(json.dumps(values).encode())
        except queue.Full:
            self.failed += 1
            log.warning("a notification was not sent: %s others wait already", _WAITING)

    def close(self, seconds: float = 5.0) -> int:
        """Send what waits, but not longer than that; returns how many were not sent."""
        end = time.monotonic() + seconds
        while self._bodies.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.02)
        self._ending.set()
        return self._bodies.unfinished_tasks

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                body = self._bodies.get(timeout=0.2)
            except queue.Empty:
                continue
            try:
                self._post(body)
            finally:
                self._bodies.task_done()

    def _post(self, body: bytes) -> None:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "face2vec",
            SIGNATURE: signature_of(body, self._secret),
        }
        reason = ""
        for delay in (0.0, *self._delays):
            if delay and self._ending.wait(delay):
                break
            request = urllib.request.Request(self.url, body, headers, method="POST")
            try:
                with self._opener.open(request, timeout=SECONDS):
                    self.sent += 1
                    return
            except urllib.error.HTTPError as error:
                reason = f"status {error.code}"
                error.close()
                if error.code < 500 and error.code not in _AGAIN:
                    break
            except (OSError, http.client.HTTPException) as error:
                reason = str(error) or type(error).__name__
        self.failed += 1
        log.warning("a notification was not sent to %s: %s", _shown(self.url), reason)


def _checked(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(not "!" <= character <= "~" for character in url):
        raise SettingsError(f"{url!r} is not a URL; give one such as https://example.org/faces")
    return url


def _shown(url: str) -> str:
    """A URL without user, password and query, which can be secret."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
