"""The cascade in processes of its own, for streams of many photos.

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
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import IO, Any

import numpy as np

from face2vec.cascade import Detector, DetectorSettings, ImageArray
from face2vec.records import Face
from face2vec.runtime import Runtime

log = logging.getLogger("face2vec")

Detect = Callable[[Sequence[ImageArray]], list[list[Face]]]

# A stream that has gone on so long will mostly go on long enough to make up for the third of a
# second and the 85 MiB that a process costs.
START_AFTER = 1.0  # seconds

_LENGTH = struct.Struct("<Q")
_SERVE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from face2vec.detector_processes import serve; serve(json.loads(sys.argv[2]))"
)


class DetectorProcesses:
    """Detects for the threads of one stream: at first in them, then in a process for each.

    The faces are the same, bit for bit. The processes end with the ``with`` block, and with the
    process that started them, however that ends. Photos go to them through pipes and nowhere else.

    Args:
        settings: what counts as a face.
        threads: how many threads will detect at once; one stays without a process.
        here: what detects in this process: at first, and instead of a process that has died.
    """

    def __init__(self, settings: DetectorSettings, threads: int, here: Detect) -> None:
        self._settings = settings
        self._here = here
        self._wanted = threads if threads > 1 and _can_start() else 0
        self._since: float | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._idle: SimpleQueue[subprocess.Popen[bytes] | None] = SimpleQueue()
        self._starting = threading.Lock()

    def __enter__(self) -> DetectorProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()

    def detect(self, images: Sequence[ImageArray]) -> list[list[Face]]:
        """As `face2vec.cascade.Detector.detect`."""
        self._start_when_due()
        if not self._processes:
            return self._here(images)
        process = self._idle.get()
        if process is None:  # in the place of one that has died
            self._idle.put(None)
            return self._here(images)
        alive = None
        try:
            found = _ask(process, images)
            alive = process
        except (EOFError, OSError):
            status = process.wait()
            log.warning("a detection process has died (exit status %s); going on without", status)
            found = self._here(images)
        finally:
            self._idle.put(alive)
        return found

    def _start_when_due(self) -> None:
        with self._starting:
            now = time.monotonic()
            self._since = self._since or now
            if not self._wanted or now < self._since + START_AFTER:
                return
            try:
                while len(self._processes) < self._wanted:
                    self._processes.append(_start(self._settings))
                    self._idle.put(self._processes[-1])
            except OSError as error:
                log.warning("no more detection processes than %d: %s", len(self._processes), error)
            self._wanted = 0


def serve(settings: dict[str, Any]) -> None:
    """Answer what comes on stdin until it ends: what a detection process does."""
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    detector = Detector(DetectorSettings(**settings), Runtime("onnxruntime"))
    try:
        while True:
            images = [
                np.frombuffer(_exactly(asked, int(np.prod(shape))), np.uint8).reshape(shape)
                for shape in _receive(asked)
            ]
            try:
                _send(answers, detector.detect(images))
            except (ArithmeticError, LookupError, MemoryError, RuntimeError, ValueError) as error:
                _send(answers, error)
    except (EOFError, OSError):
        os._exit(0)  # who asked has ended; nobody would read what Python says of the pipe


def _can_start() -> bool:
    """Whether Python can be started; a program into which it is frozen would start itself."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def _start(settings: DetectorSettings) -> subprocess.Popen[bytes]:
    paths = [os.fspath(path) for path in sys.path]
    return subprocess.Popen(
        [sys.executable, "-c", _SERVE, json.dumps(paths), json.dumps(settings.to_dict())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        # Ctrl-C is for the process that started them, which ends them.
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def _ask(process: subprocess.Popen[bytes], images: Sequence[ImageArray]) -> list[list[Face]]:
    assert process.stdin is not None
    assert process.stdout is not None
    _send(process.stdin, [image.shape for image in images], *images)
    answer: list[list[Face]] | Exception = _receive(process.stdout)
    if isinstance(answer, Exception):
        raise answer
    return answer


def _send(stream: IO[bytes], what: Any, *arrays: ImageArray) -> None:
    message = pickle.dumps(what)
    stream.write(_LENGTH.pack(len(message)) + message)
    for array in arrays:
        stream.write(np.ascontiguousarray(array).data)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return pickle.loads(_exactly(stream, length))  # from a process of our own


def _exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data
