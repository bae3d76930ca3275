"""Photos of several clients share the batches of the networks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

from face2vec.server.problems import ProblemError
from face2vec.types import Face, Photo

if TYPE_CHECKING:
    from face2vec.encoding.encoder import Encoder

BATCH = 16  # photos at most


class SharedEncoder:
    """Encodes photos of many threads: what has come while a batch was busy is the next batch.

    Args:
        encoder: returns the encoder.
        threads: batches at a time.
        waiting: photos that may wait.
        seconds: time after which a client gives up.
        seen: called with the size of each batch.
    """

    def __init__(
        self,
        encoder: Callable[[], Encoder],
        threads: int,
        waiting: int,
        seconds: float,
        seen: Callable[[int], object],
    ) -> None:
        self._encoder, self._seconds, self._seen = encoder, seconds, seen
        self._queue: queue.Queue[tuple[Photo, Future[list[Face]]] | None] = queue.Queue(waiting)
        self._threads = [
            threading.Thread(target=self._work, name=f"face2vec encode {n}", daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads."""
        for _ in self._threads:
            with suppress(queue.Full):
                self._queue.put(None, timeout=1)

    def encode(self, photo: Photo) -> list[Face]:
        """Faces of a photo with their embeddings, most confident first.

        Raises:
            PhotoError: the photo cannot be read.
            ProblemError: too many photos are waiting.
        """
        done: Future[list[Face]] = Future()
        try:
            self._queue.put_nowait((photo, done))
            return done.result(self._seconds)
        except (queue.Full, TimeoutError):
            done.cancel()
            raise ProblemError(
                503, "too many photos are waiting; try again", "busy", {"Retry-After": "2"}
            ) from None

    def _work(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            some = [first]
            with suppress(queue.Empty):
                while len(some) < BATCH:
                    another = self._queue.get_nowait()
                    if another is None:
                        self._queue.put(None)
                        break
                    some.append(another)
            some = [one for one in some if one[1].set_running_or_notify_cancel()]
            if not some:
                continue
            self._seen(len(some))
            try:
                for (_, done), result in zip(
                    some, self._encoder().batch([photo for photo, _ in some]), strict=True
                ):
                    if result.error is not None:
                        done.set_exception(result.error)
                    else:
                        done.set_result(list(result.faces))
            except Exception as error:
                for _, done in some:
                    if not done.done():
                        done.set_exception(error)
