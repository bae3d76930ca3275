"""The extraction of faces in processes of its own, for streams of many photos.

Between its networks the cascade is many short steps of Python, and of those a process does one
at a time: threads that detect mostly wait for each other.
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

from face2vec.detection.mtcnn import DetectorSettings
from face2vec.encoding.extract import Extracted, Extractor, Wanted
from face2vec.types import Unopened

log = logging.getLogger("face2vec")

# A stream that has gone on so long will mostly go on long enough to make up for the second or
# less and the 90 MiB that a process costs. The more threads there are, the more of their time
# they wait for each other.
START_AFTER = 8.0  # seconds, divided by the number of threads

_LENGTH = struct.Struct("<Q")
_SERVE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from face2vec.encoding.workers import serve; serve()"
)


class ExtractorProcesses:
    """Extracts for the threads of one stream: at first in them, then in a process for each.

    The faces are the same, bit for bit. The processes end with the ``with`` block, and with the
    process that started them, however that ends. Photos go to them through pipes and nowhere else.

    Args:
        here: what extracts in this process: at first, and instead of a process that has died.
        threads: how many threads will extract at once; one stays without a process.
    """

    def __init__(self, here: Extractor, threads: int) -> None:
        self._here = here
        self._wanted = threads if threads > 1 and _can_start(here) else 0
        self._since: float | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._idle: SimpleQueue[subprocess.Popen[bytes] | None] = SimpleQueue()
        self._starting = threading.Lock()

    def __enter__(self) -> ExtractorProcesses:
        return self

    def __exit__(self, *_: object) -> None:
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
        except Exception:  # the photos' sources may be of any class of the caller's
            return self._here.extract(wanted)
        process = self._idle.get()
        if process is None:  # in the place of one that has died
            self._idle.put(None)
            return self._here.extract(wanted)
        answer: list[Extracted] | Exception | None = None
        try:
            answer = _ask(process, message)
        except (EOFError, OSError):
            status = _ended(process)
            log.warning("an extraction process has died (exit status %s); going on without", status)
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
                log.warning("no more extraction processes than %d: %s", len(self._processes), error)
            self._wanted = 0


def serve() -> None:
    """Answer what comes on stdin until it ends: what an extraction process does."""
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    try:
        extractor = Extractor(*_receive(asked))
        while True:
            wanted = _receive(asked)
            try:
                _send(answers, pickle.dumps(extractor.extract(wanted)))
            except Exception as error:  # whatever it is, who asked has to raise it
                _send(answers, pickle.dumps(error))
    except (EOFError, OSError):
        os._exit(0)  # who asked has ended; nobody would read what Python says of the pipe


def _can_start(extractor: Extractor) -> bool:
    """Whether processes can do the work of this extractor.

    A frozen program would start itself instead of Python. A detector that the user brings along
    may not exist in another process.
    """
    is_python = bool(sys.executable) and not getattr(sys, "frozen", False)
    return is_python and isinstance(extractor.wanted, DetectorSettings)


def _start(extractor: Extractor) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, json.dumps([os.fspath(path) for path in sys.path])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        # Ctrl-C is for the process that started them, which ends them.
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    assert process.stdin is not None
    with suppress(OSError):  # it has died already, as the first who asks will find
        _send(process.stdin, pickle.dumps(_made_of(extractor)))
    return process


def _made_of(of: Extractor) -> tuple[Any, ...]:
    return of.wanted, of.model, of.runtime, of.max_pixels


def _light(wanted: Wanted) -> Wanted:
    """Without the source of a photo that will not be read again."""
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
    return pickle.loads(_exactly(stream, length))  # from a process of our own


def _exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data
