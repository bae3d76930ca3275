"""Extraction of faces in separate processes, for streams of many photos.

The detector's cascade has many short steps of Python between its networks. Only one thread of a
process can run Python at a time, so threads that detect mostly wait for each other.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from queue import SimpleQueue
from time import monotonic
from typing import IO, Any

from face2vec.detection.select import OwnSettings
from face2vec.encoding.extract import Extracted, Extractor, Wanted
from face2vec.types import Unopened

log = logging.getLogger("face2vec")

# A process costs up to a second and 90 MiB. A stream that has lasted this long will usually last
# long enough to make up for it. With more threads, the time that they wait for each other grows.
START_AFTER = 8.0  # seconds, divided by the number of threads

_LENGTH = struct.Struct("<Q")
_SERVE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from face2vec.encoding.workers import serve; serve()"
)


class ExtractorProcesses:
    """Extracts for the threads of one stream: first in the threads, then in one process per thread.

    The results are bit-identical. The processes end with the ``with`` block, and with their parent
    process however it ends. Photos are passed to them through pipes only.

    Args:
        here: extractor of this process; used at first, and in place of a process that has died.
        threads: number of threads that extract; a single thread gets no process.
    """

    def __init__(self, here: Extractor, threads: int) -> None:
        self._here = here
        self._wanted = threads if threads > 1 and _can_start(here) else 0
        self._since: float | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._idle: SimpleQueue[subprocess.Popen[bytes] | None] = SimpleQueue()
        self._starting = threading.Lock()
        self._parent = os.getpid()

    def __enter__(self) -> ExtractorProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._parent:  # they belong to the process that this one was forked from
            return
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()

    def extract(self, wanted: Sequence[Wanted]) -> list[Extracted]:
        """As `Extractor.extract`."""
        self._start_when_due()
        if not self._processes:
            return self._here.extract(wanted)
        try:
            message = pickle.dumps([_light(one) for one in wanted])
        except Exception:  # a photo's source may be any object of the caller
            return self._here.extract(wanted)
        process = self._idle.get()
        if process is None:  # a process has died
            self._idle.put(None)
            return self._here.extract(wanted)
        answer: list[Extracted] | Exception | None = None
        try:
            answer = _ask(process, message)
        except (EOFError, OSError):
            status = _ended(process)
            log.warning(
                "an extraction process has died (exit status %s); continuing without it", status
            )
        finally:
            self._idle.put(process if answer is not None else None)
        if answer is None:
            return self._here.extract(wanted)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _start_when_due(self) -> None:
        with self._starting:
            now = monotonic()
            self._since = self._since or now
            if not self._wanted or now < self._since + START_AFTER / self._wanted:
                return
            try:
                while len(self._processes) < self._wanted:
                    self._processes.append(_start(self._here))
                    self._idle.put(self._processes[-1])
            except OSError as error:
                log.warning(
                    "cannot start more than %d extraction processes: %s",
                    len(self._processes),
                    error,
                )
            self._wanted = 0


def serve() -> None:
    """Main loop of an extraction process: answer requests on standard input until it closes."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    try:
        extractor = Extractor(*_receive(requests))
        while True:
            wanted = _receive(requests)
            try:
                _send(answers, pickle.dumps(extractor.extract(wanted)))
            except Exception as error:  # the parent process raises it
                _send(answers, pickle.dumps(error))
    except (EOFError, OSError):
        os._exit(0)  # the parent has ended; skip Python's message about the closed pipe


def _can_start(extractor: Extractor) -> bool:
    """Whether separate processes can run this extractor.

    A frozen program would start itself instead of Python. A user's own detector may not exist in
    another process.
    """
    is_python = bool(sys.executable) and not getattr(sys, "frozen", False)
    return is_python and isinstance(extractor.wanted, OwnSettings)


def _start(extractor: Extractor) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, json.dumps([os.fspath(path) for path in sys.path])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        # Ctrl-C must reach only the parent process, which ends the others.
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    assert process.stdin is not None
    with suppress(OSError):  # the process has died; the first request will detect it
        _send(process.stdin, pickle.dumps(_arguments(extractor)))
    return process


def _arguments(extractor: Extractor) -> tuple[Any, ...]:
    return extractor.wanted, extractor.model, extractor.runtime, extractor.max_pixels


def _light(wanted: Wanted) -> Wanted:
    """Drop the source of a photo that will not be read again."""
    photo = wanted.photo
    if isinstance(photo, Unopened) or photo.scale < 1:
        return wanted
    return replace(wanted, photo=replace(photo, source=None))


def _ask(process: subprocess.Popen[bytes], message: bytes) -> list[Extracted] | Exception:
    assert process.stdin is not None
    assert process.stdout is not None
    _send(process.stdin, message)
    answer: list[Extracted] | Exception = _receive(process.stdout)
    return answer


def _ended(process: subprocess.Popen[bytes]) -> int:
    """The exit status of a process whose pipes no longer work."""
    try:
        return process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _send(stream: IO[bytes], message: bytes) -> None:
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return pickle.loads(_exactly(stream, length))  # safe: written by our own process


def _exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data
