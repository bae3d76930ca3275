"""The last jobs of a service, in a file beside its gallery, so that a later start shows them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from face2vec import stored
from face2vec.errors import Face2VecError
from face2vec.files import open_regular, written_whole
from face2vec.gallery.schema import FILE
from face2vec.server.jobs import CANCELLED, DONE, FAILED, Job
from face2vec.server.words import code_of
from face2vec.stored import StoredValueError

HISTORY_FILE = "jobs.json"
BYTES_MOST = 8 << 20
DEEPEST = 4
"""How deeply lists may be nested in the result of a job."""
NUMBERS_MOST = 1 << 53
_KINDS = ("index", "people", "rebuild", "upgrade")

log = logging.getLogger(__name__)


def keep_jobs(folder: Path, jobs: Iterable[Job]) -> None:
    """Write jobs to the folder of a gallery. A failure is logged, for it is no reason to stop.

    Args:
        folder: of the gallery; nothing is written before it has one.
        jobs: the oldest first. Of more than ``BYTES_MOST`` the oldest are left out.
    """
    if not (folder / FILE).exists():
        return
    texts: list[str] = []
    size = 0
    for job in reversed(list(jobs)):
        text = json.dumps(_values_of(job))
        size += len(text)
        if size > BYTES_MOST:
            break
        texts.append(text)
    try:
        with written_whole(folder / HISTORY_FILE) as stream:
            stream.write(f"[{','.join(reversed(texts))}]".encode("ascii"))
    except OSError as error:
        log.warning("cannot write %s: %s", folder / HISTORY_FILE, error)


def kept_jobs(folder: Path) -> list[Job]:
    """The jobs in the folder of a gallery, the oldest first; none if there is no sound file.

    A job that had not ended is cancelled: the service was killed.
    """
    file = folder / HISTORY_FILE
    try:
        with open_regular(file) as stream:
            content = stream.read(2 * BYTES_MOST)
        what = "the list of jobs"
        return [
            _job(one) for one in stored.array(stored.parsed(content.decode("ascii"), what), what)
        ]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, StoredValueError) as error:
        log.warning("the list of jobs %s is not read: %s", file, error)
        return []


def _values_of(job: Job) -> dict[str, Any]:
    code, values = ("", {}) if job.problem is None else code_of(job.problem)
    return {
        "id": job.id, "kind": job.kind, "title": job.title, "state": job.state, "done": job.done,
        "total": job.total, "made": job.made, "started": job.started, "ended": job.ended,
        "result": job.result, "error": job.error, "code": code,
        "values": {name: value for name, value in values.items() if isinstance(value, str | int)},
    }  # fmt: skip


def _job(values: object) -> Job:
    """A job from its values in the file.

    Raises:
        StoredValueError: one is missing or has the wrong type.
    """
    what = "a job"
    found = stored.mapping(values, what)

    def text(name: str) -> str:
        return stored.text(stored.field(found, name, what), f"{name!r} of {what}")

    def number(name: str) -> float | None:
        value = stored.field(found, name, what)
        return None if value is None else stored.number(value, f"{name!r} of {what}", 0)

    job = Job(
        stored.integer(stored.field(found, "id", what), "the number of a job", 1, NUMBERS_MOST),
        text("kind"),
        text("title"),
        lambda _: {},
        text("state"),
        int(number("done") or 0),
        None if (total := number("total")) is None else int(total),
        number("made") or 0.0,
        number("started"),
        number("ended"),
        stored.mapping(stored.field(found, "result", what), "the result of a job"),
        text("error"),
    )
    if job.kind not in _KINDS:
        raise StoredValueError(f"a job is of the unknown kind {job.kind!r}")
    if _is_deep(job.result, DEEPEST):
        raise StoredValueError("the result of a job is nested too deeply")
    if code := text("code"):
        known = stored.mapping(stored.field(found, "values", what), "what an error names")
        job.problem = Face2VecError(job.error)
        job.problem.code, job.problem.values = code, known
    if job.state not in (DONE, CANCELLED, FAILED):
        job.state, job.ended = CANCELLED, job.ended or job.started or job.made
        job.error = "the service ended before this was done; start it again to go on"
        job.problem = Face2VecError(job.error).coded("job-cut")
    return job


def _is_deep(value: object, most: int) -> bool:
    """Whether lists and objects are nested more deeply than allowed."""
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return most == 0 or any(_is_deep(one, most - 1) for one in inside)
