"""Long work in the background: indexing, grouping, rebuilding and upgrading, one at a time."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from face2vec.errors import Face2VecError, GalleryLockedError, is_full_disk, not_written
from face2vec.server.problems import NotThereError, ProblemError
from face2vec.server.words import BUG

KEPT = 20
"""Finished jobs that are remembered."""
WAITING, RUNNING, DONE, CANCELLED, FAILED = "waiting", "running", "done", "cancelled", "failed"

WAIT_SECONDS = 600.0
"""Time for which a job waits for another process that writes."""
LOOK_SECONDS = 0.5

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Work = Callable[["Report"], dict[str, Any]]


@dataclass(eq=False)
class Job:
    """One piece of work.

    Attributes:
        id: its number.
        kind: "index", "people", "rebuild" or "upgrade".
        title: what it does, for people.
        state: one of "waiting", "running", "done", "cancelled" and "failed".
        done: photos or faces done.
        total: of how many, or None if it is not known.
        made: when it was asked for, seconds since 1970.
        started: when it began, or None.
        ended: when it ended, or None.
        result: what came out, JSON-able.
        error: why it failed, or empty.
        waits_for: which other process writes, while it waits for that, or empty.
        problem: the error that ``error`` or ``waits_for`` is from, or None.
    """

    id: int
    kind: str
    title: str
    work: Work = field(repr=False)
    state: str = WAITING
    done: int = 0
    total: int | None = None
    made: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    waits_for: str = ""
    problem: Face2VecError | None = None
    cancel_asked: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values, with the rate per second and the seconds left."""
        seconds = (self.ended or time.time()) - self.started if self.started else 0.0
        rate = self.done / seconds if seconds > 0 else 0.0
        left = None
        if self.state == RUNNING and self.total and rate:
            left = max(self.total - self.done, 0) / rate
        return {
            "id": self.id, "kind": self.kind, "title": self.title, "state": self.state,
            "done": self.done, "total": self.total, "seconds": seconds, "rate": rate,
            "seconds_left": left, "made": self.made, "ended": self.ended,
            "result": self.result, "error": self.error,
            "waits_for": self.waits_for,
        }  # fmt: skip


class Report:
    """What a job is given to tell how it goes.

    Args:
        job: the job.
        changed: called after each change of it.
    """

    def __init__(self, job: Job, changed: Callable[[], object]) -> None:
        self._job, self._changed = job, changed

    def __call__(self, done: int, total: int | None) -> bool:
        """Note the progress; whether to go on."""
        self._job.done, self._job.total = done, total
        self._changed()
        return not self._job.cancel_asked

    def when_free(self, work: Callable[[], Result]) -> Result:
        """The result of work that writes to the gallery; it waits for another process that does.

        Args:
            work: begins by taking the right to write.

        Raises:
            GalleryLockedError: the other process writes for more than ``WAIT_SECONDS``.
            KeyboardInterrupt: the job is cancelled meanwhile.
        """
        until = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                result = work()
            except GalleryLockedError as error:
                if time.monotonic() > until:
                    raise
                self._note(error)
            else:
                self._note(None)
                return result
            time.sleep(LOOK_SECONDS)
            if self._job.cancel_asked:
                raise KeyboardInterrupt

    def _note(self, problem: GalleryLockedError | None) -> None:
        words = "" if problem is None else str(problem)
        if self._job.waits_for != words:
            self._job.waits_for, self._job.problem = words, problem
            self._changed()


class Jobs:
    """Runs jobs one after another in a thread, and tells who listens about each change.

    Args:
        ended: called after each job.
        before: jobs of an earlier start, the oldest first, all of which have ended.
        keep: called with all jobs, the oldest first, when one is asked for, begins or ends.
    """

    def __init__(
        self,
        ended: Callable[[], object] = lambda: None,
        before: Iterable[Job] = (),
        keep: Callable[[list[Job]], object] = lambda jobs: None,
    ) -> None:
        self._ended = ended
        self._keep = keep
        self._jobs = deque(list(before)[-KEPT:])
        self._numbers = itertools.count(1 + max((job.id for job in self._jobs), default=0))
        self._changed = threading.Condition()
        self._version = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """Cancel what is running and start nothing more; finished work is kept."""
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.cancel_asked = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(30)

    def start(self, kind: str, title: str, work: Work) -> Job:
        """Do some work as soon as what was asked for before is done.

        Args:
            kind: see `Job`.
            title: what it does.
            work: the work; it is given what to report its progress to, see `Report`.

        Raises:
            ProblemError: too many jobs are waiting.
        """
        with self._changed:
            if sum(job.state in (WAITING, RUNNING) for job in self._jobs) >= KEPT:
                raise ProblemError(429, "too many jobs are waiting; cancel some", "jobs")
            job = Job(next(self._numbers), kind, title, work)
            self._jobs.append(job)
            ended = [one for one in self._jobs if one.ended is not None]
            for one in ended[: max(len(ended) - KEPT, 0)]:
                self._jobs.remove(one)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="face2vec jobs", daemon=True)
                self._thread.start()
            self._tell_and_keep()
        return job

    def all(self) -> list[Job]:
        """All jobs that are remembered, the newest first."""
        with self._changed:
            return list(reversed(self._jobs))

    def one(self, number: int) -> Job:
        """A job.

        Raises:
            NotThereError: there is none with this number.
        """
        for job in self.all():
            if job.id == number:
                return job
        raise NotThereError(f"there is no job {number}").coded("no-job", number=number)

    def cancel(self, number: int) -> Job:
        """End a job early; what it has finished is kept.

        Raises:
            NotThereError: there is none with this number.
        """
        job = self.one(number)
        with self._changed:
            job.cancel_asked = True
            if job.state == WAITING:
                job.state, job.ended = CANCELLED, time.time()
            self._tell_and_keep()
        return job

    @property
    def is_busy(self) -> bool:
        """Whether a job is running."""
        return self.running is not None

    @property
    def running(self) -> Job | None:
        """The job that is running, or None."""
        return next((job for job in self.all() if job.state == RUNNING), None)

    @property
    def version(self) -> int:
        """A number that grows with each change of a job."""
        return self._version

    def _tell(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _tell_and_keep(self) -> None:
        """Tell that a job was asked for, has begun or has ended, and keep all."""
        self._tell()
        self._keep(list(self._jobs))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next() is not None)
                job = self._next()
                if self._closed or job is None:
                    return
                job.state, job.started = RUNNING, time.time()
                self._tell_and_keep()
            self._do(job)

    def _next(self) -> Job | None:
        return next((job for job in self._jobs if job.state == WAITING), None)

    def _do(self, job: Job) -> None:
        state, error = DONE, ""
        failure: Face2VecError | None = None

        def tell() -> None:
            with self._changed:
                self._tell()

        try:
            job.result = job.work(Report(job, tell))
            if job.result.get("interrupted"):
                state = CANCELLED
        except KeyboardInterrupt:
            state = CANCELLED
        except Face2VecError as problem:
            state, error, failure = FAILED, str(problem), problem
        except Exception as problem:
            state, error = FAILED, f"{BUG}{type(problem).__name__}: {problem}"
            if isinstance(problem, OSError) and is_full_disk(problem):
                failure = not_written(problem)
                error = str(failure)
            else:
                log.exception("the job %d (%s) has failed", job.id, job.kind)
        self._ended()
        with self._changed:
            job.state, job.error, job.ended = state, error, time.time()
            job.waits_for, job.problem = "", failure
            self._tell_and_keep()
