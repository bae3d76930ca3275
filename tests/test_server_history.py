from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from face2vec.errors import GalleryLockedError
from face2vec.gallery.schema import FILE
from face2vec.server import history
from face2vec.server.history import HISTORY_FILE, keep_jobs, kept_jobs
from face2vec.server.jobs import CANCELLED, DONE, FAILED, KEPT, RUNNING, WAITING, Job, Jobs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / FILE).touch()
    return tmp_path


def made(number: int, state: str = DONE, **values: Any) -> Job:
    times = {"made": 10.0 * number, "started": 10.0 * number + 1, "ended": 10.0 * number + 2}
    if state in (WAITING, RUNNING):
        times["ended"] = None  # type: ignore[assignment]
    return Job(number, "index", "/photos", lambda _: {}, state, **{**times, **values})


def test_jobs_are_kept_with_their_results_and_problems(folder: Path) -> None:
    problem = GalleryLockedError("process 7 writes").coded("locked", writer="process 7")
    jobs = [
        made(3, done=4, total=5, result={"added": 4, "unreadable": [["/photos/a", "cut"]]}),
        made(4, FAILED, error="process 7 writes", problem=problem),
        made(5, CANCELLED, started=None),
    ]
    keep_jobs(folder, jobs)
    again = kept_jobs(folder)
    assert [job.to_dict() for job in again] == [job.to_dict() for job in jobs]
    assert again[1].problem is not None
    assert (again[1].problem.code, again[1].problem.values) == ("locked", {"writer": "process 7"})


@pytest.mark.parametrize("state", [WAITING, RUNNING])
def test_job_that_had_not_ended_is_cancelled(folder: Path, state: str) -> None:
    keep_jobs(folder, [made(1, state)])
    (job,) = kept_jobs(folder)
    assert (job.state, job.ended) == (CANCELLED, 11.0)
    assert "start it again" in job.error
    assert job.problem is not None
    assert job.problem.code == "job-cut"


def test_nothing_is_kept_before_there_is_a_gallery(tmp_path: Path) -> None:
    keep_jobs(tmp_path, [made(1)])
    assert list(tmp_path.iterdir()) == []
    assert kept_jobs(tmp_path) == []


def test_oldest_jobs_are_left_out_of_a_large_list(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "BYTES_MOST", 3000)
    keep_jobs(folder, [made(n, result={"unreadable": ["x" * 1000]}) for n in range(1, 6)])
    assert [job.id for job in kept_jobs(folder)] == [4, 5]


WHOLE: dict[str, Any] = {
    "id": 1, "kind": "index", "title": "", "state": "done", "done": 0, "total": None, "made": 1,
    "started": 1, "ended": 2, "result": {}, "error": "", "code": "", "values": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        {"id": 0}, {"id": "1"}, {"kind": "format"}, {"title": None}, {"state": 1}, {"done": "x"},
        {"made": "now"}, {"result": []}, {"error": None}, {"code": "x", "values": None},
        {"made": 10**400}, {"done": 10**400}, {"id": 1 << 60}, {"result": {"a": [[[[]]]]}},
    ],
)  # fmt: skip
def test_list_with_a_wrong_value_is_not_read(
    folder: Path, values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    (folder / HISTORY_FILE).write_text(json.dumps([WHOLE]))
    assert [job.id for job in kept_jobs(folder)] == [1]
    (folder / HISTORY_FILE).write_text(json.dumps([WHOLE | values]))
    with caplog.at_level(logging.WARNING):
        assert kept_jobs(folder) == []
    assert HISTORY_FILE in caplog.text


@pytest.mark.parametrize("name", ["code", "self", "other"])
def test_error_may_name_any_value(folder: Path, name: str) -> None:
    values = WHOLE | {"state": "failed", "code": "x", "values": {name: 1}}
    (folder / HISTORY_FILE).write_text(json.dumps([values]))
    (job,) = kept_jobs(folder)
    assert job.problem is not None
    assert (job.problem.code, job.problem.values) == ("x", {name: 1})


@pytest.mark.parametrize("content", [b"", b"{}", b"[", b"\xff", b"[" * 100_000])
def test_file_that_is_no_list_is_not_read(folder: Path, content: bytes) -> None:
    (folder / HISTORY_FILE).write_bytes(content)
    assert kept_jobs(folder) == []


def test_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(json.dumps([WHOLE]))
    (folder / HISTORY_FILE).symlink_to(other)
    assert kept_jobs(folder) == []
    keep_jobs(folder, [made(2)])
    assert json.loads(other.read_text()) == [WHOLE]
    assert [job.id for job in kept_jobs(folder)] == [2]


def test_numbers_go_on_and_the_last_jobs_are_remembered(folder: Path) -> None:
    before = [made(n) for n in range(1, KEPT + 4)]
    jobs = Jobs(before=before, keep=lambda all_: keep_jobs(folder, all_))
    assert [job.id for job in jobs.all()] == list(range(KEPT + 3, 3, -1))
    new = jobs.start("rebuild", "", lambda _: {"x": 1})
    while new.ended is None:
        pass
    jobs.close()
    assert new.id == KEPT + 4
    assert [job.id for job in kept_jobs(folder)] == list(range(4, KEPT + 5))
    assert kept_jobs(folder)[-1].result == {"x": 1}
