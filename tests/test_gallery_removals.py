"""Removals, and the switch of an upgrade, that are killed or run out of disk are finished later."""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import killed
import pytest
from click.testing import CliRunner
from helpers import posix_only, run_python

from face2vec import Face2Vec
from face2vec.cli.main import main
from face2vec.errors import GalleryError
from face2vec.gallery import removals, writer
from face2vec.gallery.connection import Connection
from face2vec.gallery.removals import Removal
from face2vec.gallery.rows import INDEXED, Entry
from face2vec.gallery.schema import FILE
from face2vec.gallery.staging import UPGRADE_FILE, UPGRADED_INDEX
from face2vec.gallery.writer import Writer
from face2vec.index.sync import GalleryIndex

FACES = [n + 1 for n in range(killed.PEOPLE * killed.EACH) if n % killed.PEOPLE]
"""The faces that are left when the first person has gone."""
GONE = killed.EACH


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    killed.make(tmp_path / "gallery")
    return tmp_path / "gallery"


def run_killed(command: str, after: str, tmp_path: Path, size: str = "small") -> dict[str, Any]:
    script = Path(killed.__file__)
    run_python(script, "make", tmp_path / "start")
    if command == "upgrade":
        run_python(script, "stage", tmp_path / "start")
    (tmp_path / "work").mkdir()
    report: dict[str, Any] = json.loads(
        run_python(script, command, after, tmp_path / "start", tmp_path / "work", size)
    )
    return report


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize(
    ("command", "after"), [("forget", "forget"), ("remove", "remove"), ("forget", "name")]
)
@pytest.mark.parametrize("size", ["small", "large"])
def test_removal_killed_anywhere_is_reported_and_finished_by_the_next_writer(
    command: str, after: str, size: str, tmp_path: Path
) -> None:
    report = run_killed(command, after, tmp_path, size)
    assert ("VACUUM" in report["steps"]) == (size == "small")
    done = report["done"]
    assert done == ([GONE, GONE, []] if command == "forget" else [GONE, GONE])
    committed = report["steps"].index("COMMIT") + 1
    kept = [] if command == "forget" else ["name"]  # of a person whose photos were removed
    resumed = 0
    for outcome in report["killed"]:
        problems, left = outcome["before"]
        if outcome["step"] > committed:
            assert bool(problems) >= (left != kept), outcome  # whatever is left is reported
        if after == command:
            # A command that was killed after everything was done has nothing to do.
            finished = outcome["step"] > committed and not problems
            assert outcome["done"] == done or (finished and isinstance(outcome["done"], str))
            resumed += outcome["step"] > committed and outcome["done"] == done
        if after == command or outcome["step"] > committed:
            assert (outcome["check"], outcome["left"]) == ([], kept), outcome
            assert sorted(outcome["faces"]) == FACES
            assert not [name for name in outcome["files"] if ".new" in name]
        else:
            assert len(outcome["left"]) == len(killed.secrets())  # nothing had been begun
    assert after != command or resumed >= 5


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize("after", ["upgrade", "name"])
def test_upgrade_killed_anywhere_is_finished_by_the_next_writer(after: str, tmp_path: Path) -> None:
    report = run_killed("upgrade", after, tmp_path)
    committed = report["steps"].index("COMMIT") + 1
    models = set()
    for outcome in report["killed"]:
        switched = outcome["step"] > committed
        models.add(outcome["model"])
        assert outcome["model"] == ("new" if switched or after == "upgrade" else "fake")
        assert outcome["check"] == [], outcome
        assert (UPGRADE_FILE in outcome["files"]) == (outcome["model"] == "fake"), outcome
        assert "index.faiss" in outcome["files"]
        assert not [name for name in outcome["files"] if UPGRADED_INDEX in name], outcome
    assert "new" in models


def interrupt(gallery: Path, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command that stops after its commit: the file and the index are not written."""

    def stop(_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(GalleryIndex, "rebuild", stop)
        patch.setattr(GalleryIndex, "save", stop)
        patch.setattr(Writer, "_purge", lambda _: None)
        with pytest.raises(RuntimeError):
            command(gallery)


def test_forget_command_finishes_an_interrupted_deletion_and_says_so(
    gallery: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    interrupt(gallery, killed.forget, monkeypatch)
    checked = CliRunner().invoke(main, ["check", str(gallery)])
    assert checked.exit_code == 1
    assert "traces of removed photos may be left" in checked.stdout
    assert "holds faces that were removed" in checked.stdout
    with Face2Vec(gallery) as engine:
        assert not engine.is_half_forgotten("Somebody")
        assert not engine.is_half_forgotten(2)
        assert engine.is_half_forgotten(1)
    done = CliRunner().invoke(main, ["forget", str(gallery), killed.NAME])  # asks nothing
    assert done.exit_code == 0
    assert "finished a deletion that was interrupted: 3 faces and 3 photos deleted" in done.stderr
    assert "searched all files of the gallery for the name: nothing is left" in done.stderr
    assert "an earlier removal of 3 photos and 3 faces" in caplog.text
    assert killed.left_in(gallery) == []
    again = CliRunner().invoke(main, ["forget", str(gallery), killed.NAME])
    assert again.exit_code == 3
    assert "there is no person" in again.stderr


def test_forget_of_another_person_is_not_taken_for_the_interrupted_one(
    gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(gallery, killed.forget, monkeypatch)
    with Face2Vec(gallery) as engine:
        with pytest.raises(GalleryError, match="there is no person 'Somebody'"):
            engine.forget("Somebody")
        done = engine.forget(3)
        assert (done.person, done.faces, done.resumed, done.left) == (3, 3, False, ())
    assert killed.left_in(gallery) == []


def test_remove_of_other_photos_is_not_taken_for_the_interrupted_one(
    gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(gallery, killed.remove, monkeypatch)
    with Face2Vec(gallery) as engine, pytest.raises(GalleryError, match="none of these"):
        engine.remove("/photos/other.jpg")
    assert killed.left_in(gallery) == ["name"]  # the person stays
    assert killed.checked(gallery) == []


def not_scrubbed(gallery: Path) -> None:
    """Make a gallery one that a version wrote which does not scrub."""
    with closing(sqlite3.connect(gallery / FILE)) as connection, connection:
        assert connection.execute("DELETE FROM meta WHERE key = 'scrubbed'").rowcount == 1


def refuse_vacuum(patch: pytest.MonkeyPatch) -> list[str]:
    """Make rewriting a file fail; returns the attempts as they are made."""
    execute, tried = Connection.execute, list[str]()

    def full(connection: Connection, statement: str, *values: Any) -> Any:
        if statement == "VACUUM":
            tried.append(statement)
            raise sqlite3.OperationalError("database or disk is full")
        return execute(connection, statement, *values)

    patch.setattr(Connection, "execute", full)
    return tried


def test_full_disk_while_the_file_is_rewritten_is_reported_and_finished_later(
    gallery: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    not_scrubbed(gallery)
    with monkeypatch.context() as patch:
        refuse_vacuum(patch)
        faces, photos, left = killed.forget(gallery)
    assert (faces, photos) == (GONE, GONE)
    assert f"what was removed is still in {gallery / FILE}" in caplog.text
    assert left
    assert ["traces of removed" in problem for problem in killed.checked(gallery)] == [True]
    assert killed.forget(gallery) == [GONE, GONE, []]
    assert (killed.left_in(gallery), killed.checked(gallery)) == ([], [])


def test_file_that_was_scrubbed_need_not_be_rewritten(
    gallery: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        assert refuse_vacuum(patch) == []
        assert killed.forget(gallery) == [GONE, GONE, []]
    assert (killed.left_in(gallery), killed.checked(gallery)) == ([], [])
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("command", ["forget", "remove"])
def test_large_file_is_rewritten_only_if_most_of_it_is_free_or_it_was_not_scrubbed(
    command: str, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SMALL_BYTES", 0)
    statements: list[str] = []
    execute = Connection.execute

    def traced(connection: Connection, statement: str, *values: Any) -> Any:
        statements.append(statement)
        return execute(connection, statement, *values)

    monkeypatch.setattr(Connection, "execute", traced)
    kept = [] if command == "forget" else ["name"]  # of a person whose photos were removed
    killed.COMMANDS[command](gallery)
    assert "VACUUM" not in statements
    assert (killed.left_in(gallery), killed.checked(gallery)) == (kept, [])
    size = (gallery / FILE).stat().st_size
    not_scrubbed(gallery)
    with Face2Vec(gallery) as engine:
        engine.remove(f"/photos/{killed.photo(1)}")
    assert statements.count("VACUUM") == 1  # and from then on it is scrubbed
    with Face2Vec(gallery) as engine:
        engine.remove(f"/photos/{killed.photo(2)}")
        assert statements.count("VACUUM") == 1
        monkeypatch.setattr(writer, "MOSTLY", -1.0)
        engine.remove("/photos")
    assert statements.count("VACUUM") == 2
    assert (gallery / FILE).stat().st_size <= size
    assert killed.checked(gallery) == []


def test_long_transactions_empty_the_wal_and_leave_nothing(
    gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SMALL_BYTES", 0)
    monkeypatch.setattr(writer, "WAL_BYTES", 1)
    with Face2Vec(gallery) as engine, engine._session.write() as writing:
        gone = set()
        for number in range(1000, 1400):
            one = killed.face(number)
            entry = Entry(
                killed.ROOT, killed.photo(number), 1, 1, number.to_bytes(32, "big"), 9, 9,
                INDEXED, "", (one,),
            )  # fmt: skip
            writing.record([entry])
            assert not (gallery / f"{FILE}-wal").stat().st_size
            if number % 3:
                writing.remove(f"{killed.ROOT}/{killed.photo(number)}")
                gone |= {killed.photo(number).encode(), one.embedding.tobytes()}
        engine._session.index().save()
    everything = (gallery / FILE).read_bytes()
    assert [secret for secret in gone if secret in everything] == []
    assert killed.checked(gallery) == []


def test_index_that_cannot_be_rebuilt_after_a_removal_is_deleted(
    gallery: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    interrupt(gallery, killed.forget, monkeypatch)

    def full(_: object) -> None:
        raise GalleryError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(GalleryIndex, "rebuild", full)
        assert killed.forget(gallery) == [GONE, GONE, []]
    assert "the disk is full; the file is deleted" in caplog.text
    assert not (gallery / "index.faiss").exists()
    assert killed.left_in(gallery) == []


def test_writer_without_unfinished_work_leaves_the_index_as_it_is(
    gallery: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = (gallery / "index.faiss").read_bytes()
    killed.name_other(gallery)
    assert (gallery / "index.faiss").read_bytes() == before
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    "stored",
    [b"bytes", 7, "", "[]", "{}", '{"photos": -1, "faces": 1, "person": 0, "keys": []}',
     '{"photos": 1, "faces": 1, "person": 0, "keys": [7]}', "[" * 100_000],
)  # fmt: skip
def test_invalid_line_of_a_removal_is_a_removal_of_nothing(stored: object) -> None:
    assert Removal.from_json(stored) == Removal(0, 0)


def test_removal_line_names_nobody(gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(gallery, killed.forget, monkeypatch)
    connection = sqlite3.connect(gallery / FILE, factory=Connection)
    try:
        (line,) = removals.unfinished(connection)
        assert (line.photos, line.faces, line.person, len(line.keys)) == (GONE, GONE, 1, 2)
        assert killed.NAME not in line.to_json()
        assert Removal.from_json(line.to_json()) == line
        assert removals.find(connection, removals.FORGET, [killed.NAME]) == line
        assert removals.find(connection, removals.REMOVE, [killed.NAME]) is None
    finally:
        connection.close()
