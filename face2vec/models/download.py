"""Downloads a file from the web: resumable, verified, and by one process at a time."""

from __future__ import annotations

import hashlib
import re
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout

from face2vec.errors import DownloadError
from face2vec.files import put_in_place

ATTEMPTS = 5
FIRST_PAUSE = 0.2
"""Seconds before the second attempt; doubled before each further attempt."""

_CHUNK = 1 << 16
_DROPS = (HTTPException, ConnectionResetError, ConnectionAbortedError, ssl.SSLEOFError)


class _DroppedError(Exception):
    """The connection failed and another attempt may succeed.

    Args:
        reason: what failed.
        start_again: whether the partial file is useless and must be deleted.
    """

    def __init__(self, reason: str, *, start_again: bool = False) -> None:
        super().__init__(reason)
        self.start_again = start_again


class _FailedError(Exception):
    """The download failed for good; the text says why."""


def download(
    url: str,
    destination: Path,
    *,
    sha256: str,
    size: int | None = None,
    timeout: float = 30.0,
    progress: bool = True,
    terms: str = "",
    retry: str = "",
) -> Path:
    """Download a file unless it already exists with the expected hash.

    The content is first written to ``<destination>.part``. An interrupted download
    leaves this file, and the next download resumes it. A second process that
    downloads the same file waits for the first.

    Args:
        url: http or https address.
        destination: path of the file; missing folders are created.
        sha256: expected SHA-256, in lower-case hexadecimal.
        size: size of the file in bytes, if known.
        timeout: seconds to wait for each answer of the server.
        progress: whether to show a progress bar on standard error.
        terms: text to print on standard error before the file is fetched.
        retry: what else to do if the download fails, for the error message.

    Returns:
        ``destination``.

    Raises:
        DownloadError: the file could not be downloaded, written or verified; the
            message says how to place it by hand.
    """
    if _is_right(destination, sha256):
        return destination
    part = destination.with_name(destination.name + ".part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _only_process(destination, progress):
            if not _is_right(destination, sha256):
                if terms:
                    _say(terms)
                _fetch(url, part, sha256, size, timeout, progress)
                put_in_place(part, destination)
    except (_FailedError, OSError) as error:
        existing = ", replacing a file with another hash" if destination.is_file() else ""
        raise DownloadError(
            f"cannot download {destination.name} from {url}: {error}; {retry}to place it by hand, "
            f"download {url.rsplit('/', 1)[-1]} from that address on any machine and save it as "
            f"{destination.absolute()}{existing} (SHA-256 {sha256})"
        ) from error
    return destination


def _say(text: str) -> None:
    """Print a line on standard error, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(text, sys.stderr)


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_right(path: Path, sha256: str) -> bool:
    return path.is_file() and _sha256_of(path) == sha256


@contextmanager
def _only_process(destination: Path, progress: bool) -> Iterator[None]:
    """Hold the lock of ``destination``; report if it must be waited for."""
    lock = FileLock(f"{destination}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if progress:
            _say(f"waiting for another process that downloads {destination}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(
    url: str, part: Path, sha256: str, size: int | None, timeout: float, progress: bool
) -> None:
    """Download ``part`` until it is complete, and verify it."""
    if _is_right(part, sha256):
        return
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _receive(url, part, size, timeout, progress)
            break
        except _DroppedError as dropped:
            if attempt == ATTEMPTS:
                raise _FailedError(f"{dropped} (tried {ATTEMPTS} times)") from dropped
            if dropped.start_again:
                part.unlink()
            time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
    got = _sha256_of(part)
    if got != sha256:
        part.unlink()
        raise _FailedError(f"expected SHA-256 {sha256}, got {got}; the wrong file was deleted")


def _receive(url: str, part: Path, size: int | None, timeout: float, progress: bool) -> None:
    """Append to ``part`` what the server sends in one connection."""
    from tqdm import tqdm

    have = part.stat().st_size if part.is_file() else 0
    with _open(url, have, timeout) as response:
        start, total = _span(response)
        if start not in (0, have):
            raise _DroppedError(
                f"the server answered from byte {start} to a request from byte {have}",
                start_again=True,
            )
        total = total or size
        with (
            _writing(part, append=start > 0) as file,
            tqdm(
                desc=part.stem,
                total=total,
                initial=start,
                unit="B",
                unit_scale=True,
                disable=not progress,
                file=sys.stderr,
            ) as bar,
        ):
            while chunk := _read(response, timeout):
                file.write(chunk)
                bar.update(len(chunk))
    arrived = part.stat().st_size
    if total is not None and arrived < total:
        raise _DroppedError(f"the connection ended after {arrived} of {total} bytes")


def _open(url: str, have: int, timeout: float) -> HTTPResponse:
    """Request the file from byte ``have`` on."""
    headers = {"User-Agent": "face2vec"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=timeout)
    except HTTPError as error:
        error.close()
        reason = f"the server answered {error.code} {error.reason}"
        if error.code == 416 and have:
            raise _DroppedError(f"{reason} from byte {have} on", start_again=True) from error
        if error.code >= 500:
            raise _DroppedError(reason) from error
        raise _FailedError(reason) from error
    except (OSError, HTTPException, ValueError) as error:
        raise _explained(error, timeout) from error
    return response


def _read(response: HTTPResponse, timeout: float) -> bytes:
    """Read up to a chunk of the response; empty at the end."""
    try:
        return response.read1(_CHUNK)
    except (OSError, HTTPException) as error:
        raise _explained(error, timeout) from error


def _explained(error: Exception, timeout: float) -> _DroppedError | _FailedError:
    """Classify a network error by whether another attempt may succeed."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return _FailedError(f"the server was silent for {timeout:g} s")
    if isinstance(cause, _DROPS):
        return _DroppedError(f"the connection was dropped ({cause})")
    return _FailedError(f"no connection ({cause})")


def _span(response: HTTPResponse) -> tuple[int, int | None]:
    """First byte of a response, and the length of the whole file if the server gives it."""
    if response.status != 206:
        return 0, response.length
    span = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", span)
    if match is None:
        raise _DroppedError(f"the server answered with Content-Range {span!r}", start_again=True)
    return int(match[1]), None if match[2] == "*" else int(match[2])


@contextmanager
def _writing(part: Path, *, append: bool) -> Iterator[BinaryIO]:
    """Open the file for writing. An OSError in the block is one of the disk.

    Network errors are converted to other exceptions before they reach this block.
    """
    try:
        with part.open("ab" if append else "wb") as file:
            yield file
    except OSError as error:
        raise _FailedError(f"cannot write {part} ({error.strerror})") from error
