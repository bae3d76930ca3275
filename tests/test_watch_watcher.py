"""A gallery that follows its folders: real files, real events, real galleries."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers import Started, needs, posix_only

from face2vec import Face2Vec, samples
from face2vec.cli import watch as cli_watch
from face2vec.cli.main import main
from face2vec.errors import CalibrationError, MissingExtraError, SettingsError
from face2vec.watch import Change, Webhook, watch, watcher

SETTLED = 0.4


class Watching:
    """Runs `watch` in a thread; `next` waits for a change."""

    def __init__(self, engine: Face2Vec, *folders: Path, **options: Any) -> None:
        needs("watch", "watchfiles")
        self.said: list[str] = []
        self._found: queue.Queue[Change | BaseException | None] = queue.Queue()
        self._stop = threading.Event()
        begun = threading.Event()

        def say(text: str) -> None:
            self.said.append(text)
            begun.set()

        def run() -> None:
            try:
                given = {"settled": SETTLED, **options}
                changes = watch(engine, *folders, stop=self._stop, say=say, **given)
                for change in changes:
                    self._found.put(change)
                self._found.put(None)
            except BaseException as error:
                self._found.put(error)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert begun.wait(60)

    def next(self) -> Change:
        found = self._found.get(timeout=60)
        assert isinstance(found, Change), found
        return found

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not is_so():
            assert time.monotonic() < end
            time.sleep(0.05)

    def stop(self) -> list[Change]:
        """End it; returns the changes that nobody has asked for."""
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        rest = []
        while (found := self._found.get_nowait()) is not None:
            assert isinstance(found, Change), found
            rest.append(found)
        return rest


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def engine(tiny_model: Path, tmp_path: Path) -> Iterator[Face2Vec]:
    with Face2Vec(tmp_path / "gallery", model=tiny_model) as opened:
        yield opened


def known(engine: Face2Vec) -> dict[str, str]:
    return {Path(one.photo).name: one.status for one in engine.photos()}


def test_files_are_followed_as_they_come_and_go(
    engine: Face2Vec, photos: Path, faces_folder: Path
) -> None:
    shutil.copy(faces_folder / "hopper.jpg", photos / "a.jpg")
    watching = Watching(engine, photos)
    assert watching.said == [f"watching {photos}: 1 photo, 1 added"]

    shutil.copy(faces_folder / "both.jpg", photos / "b.jpg")
    assert watching.next() == Change("added", str(photos / "b.jpg"), 2)

    shutil.copy(faces_folder / "nobody.jpg", photos / "a.jpg")
    assert watching.next() == Change("changed", str(photos / "a.jpg"), 0)

    shutil.copy(photos / "b.jpg", photos / "copy.jpg")
    assert watching.next() == Change("copied", str(photos / "copy.jpg"), 2)

    (photos / "b.jpg").rename(photos / "c.jpg")
    moved = Change("moved", str(photos / "c.jpg"), 2, before=str(photos / "b.jpg"))
    assert watching.next() == moved
    watching.wait_until(lambda: "b.jpg" not in known(engine))

    (photos / "broken.jpg").write_bytes((faces_folder / "hopper.jpg").read_bytes()[:500])
    assert watching.next() == Change("unreadable", str(photos / "broken.jpg"), reason="truncated")

    (photos / "c.jpg").unlink()
    assert watching.next() == Change("deleted", str(photos / "c.jpg"), 2)
    assert "c.jpg" in known(engine)

    assert watching.stop() == []
    assert engine.check() == []


@pytest.mark.slow
def test_file_is_read_when_it_is_complete(
    engine: Face2Vec, photos: Path, faces_folder: Path
) -> None:
    watching = Watching(engine, photos, settled=3.0)
    content = (faces_folder / "both.jpg").read_bytes()
    with (photos / "slow.jpg").open("wb") as file:
        for part in range(6):
            file.write(content[part * 20_000 : (part + 1) * 20_000])
            file.flush()
            time.sleep(0.7)  # together longer than the file must stay the same
        file.write(content[120_000:])
    assert watching.next() == Change("added", str(photos / "slow.jpg"), 2)
    assert watching.stop() == []


def test_what_is_no_photo_or_left_out_is_not_read(
    engine: Face2Vec, photos: Path, faces_folder: Path
) -> None:
    watching = Watching(engine, photos, exclude=["scans/"])
    (photos / "scans").mkdir()
    for name in ("scans/a.jpg", ".hidden.jpg", "note.txt", "b.jpg.xmp", "c.jpg_original", "ok.jpg"):
        shutil.copy(faces_folder / "hopper.jpg", photos / name)
    assert watching.next() == Change("added", str(photos / "ok.jpg"), 1)
    assert watching.stop() == []
    assert known(engine) == {"ok.jpg": "indexed"}


@pytest.mark.parametrize("prune", [False, True])
def test_folders_that_are_moved_in_and_out(
    engine: Face2Vec, photos: Path, faces_folder: Path, tmp_path: Path, prune: bool
) -> None:
    shutil.copy(faces_folder / "nobody.jpg", photos / "stays.jpg")
    (tmp_path / "new" / "deep").mkdir(parents=True)
    shutil.copy(faces_folder / "both.jpg", tmp_path / "new" / "a.jpg")
    shutil.copy(faces_folder / "hopper.jpg", tmp_path / "new" / "deep" / "b.jpg")
    watching = Watching(engine, photos, prune=prune)
    (tmp_path / "new").rename(photos / "new")
    assert watching.next() == Change("added", str(photos / "new" / "a.jpg"), 2)
    assert watching.next() == Change("added", str(photos / "new" / "deep" / "b.jpg"), 1)
    (photos / "new").rename(tmp_path / "gone")
    assert watching.next() == Change("removed" if prune else "deleted", str(photos / "new"), 3)
    assert watching.stop() == []
    assert len(known(engine)) == (1 if prune else 3)
    assert engine.info()["faces"] == (0 if prune else 3)


def test_folder_that_is_renamed_takes_its_photos_along(
    engine: Face2Vec, photos: Path, faces_folder: Path
) -> None:
    (photos / "old" / "deep").mkdir(parents=True)
    shutil.copy(faces_folder / "both.jpg", photos / "old" / "a.jpg")
    shutil.copy(faces_folder / "nobody.jpg", photos / "old" / "deep" / "b.jpg")
    watching = Watching(engine, photos)
    (photos / "old").rename(photos / "new")
    for name, faces in (("a.jpg", 2), ("deep/b.jpg", 0)):
        old, new = str(photos / "old" / name), str(photos / "new" / name)
        assert watching.next() == Change("moved", new, faces, before=old)
    watching.wait_until(lambda: len(list(engine.photos())) == 2)
    assert {one.photo for one in engine.photos()} == {
        str(photos / "new" / "a.jpg"), str(photos / "new" / "deep" / "b.jpg"),
    }  # fmt: skip
    assert engine.info()["faces"] == 2
    assert watching.stop() == []


def test_photos_that_were_stored_before_an_error_are_told(
    engine: Face2Vec, photos: Path, faces_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "RETRY", 0.5)
    really, failed = engine.add, threading.Event()

    def half(*sources: Any, only: Any = None, **options: Any) -> Any:
        if only is None or failed.is_set():
            return really(*sources, only=only, **options)
        really(*sources, only=only[:1], **options)
        failed.set()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine, "add", half)
    watching = Watching(engine, photos)
    for name in ("both.jpg", "hopper.jpg"):
        shutil.copy(faces_folder / name, photos)
    assert watching.next() == Change("added", str(photos / "both.jpg"), 2)
    assert watching.next() == Change("added", str(photos / "hopper.jpg"), 1)
    assert failed.is_set()
    assert watching.stop() == []


def test_pruning_removes_deleted_and_moved_photos(
    engine: Face2Vec, photos: Path, faces_folder: Path
) -> None:
    for name in ("hopper.jpg", "both.jpg", "nobody.jpg"):
        shutil.copy(faces_folder / name, photos)
    watching = Watching(engine, photos, prune=True)
    (photos / "hopper.jpg").unlink()
    assert watching.next() == Change("removed", str(photos / "hopper.jpg"), 1)
    (photos / "both.jpg").rename(photos / "new.jpg")
    assert watching.next().kind == "moved"
    watching.wait_until(lambda: "both.jpg" not in known(engine))
    assert known(engine) == {"new.jpg": "indexed", "nobody.jpg": "no-face"}
    (photos / "new.jpg").unlink()
    (photos / "nobody.jpg").unlink()  # the folder is empty now, as if its disk were gone
    assert {watching.next().kind for _ in range(2)} <= {"deleted", "removed"}
    watching.stop()
    assert "nothing was removed" in watching.said[-1]
    assert len(known(engine)) >= 1


def test_gallery_inside_of_the_folder_is_not_followed(
    photos: Path, faces_folder: Path, tiny_model: Path
) -> None:
    with Face2Vec(photos / "gallery", model=tiny_model) as engine:
        watching = Watching(engine, photos)
        shutil.copy(faces_folder / "hopper.jpg", photos / "a.jpg")
        assert watching.next() == Change("added", str(photos / "a.jpg"), 1)
        assert watching.stop() == []


def test_gallery_that_others_write_to_is_tried_again(
    engine: Face2Vec,
    photos: Path,
    faces_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watcher, "RETRY", 0.2)
    watching = Watching(engine, photos)
    with Face2Vec(tmp_path / "gallery") as other, other._session.write():
        shutil.copy(faces_folder / "hopper.jpg", photos / "a.jpg")
        watching.wait_until(lambda: len(watching.said) > 1)
        time.sleep(1)
    assert watching.next() == Change("added", str(photos / "a.jpg"), 1)
    assert watching.stop() == []
    assert len(watching.said) == 2  # said once
    assert watching.said[1].endswith("; tried again every 0.2 s")


def test_touched_file_is_no_change(engine: Face2Vec, photos: Path, faces_folder: Path) -> None:
    shutil.copy(faces_folder / "hopper.jpg", photos / "a.jpg")
    watching = Watching(engine, photos)
    os.utime(photos / "a.jpg")
    shutil.copy(faces_folder / "nobody.jpg", photos / "b.jpg")
    assert watching.next() == Change("added", str(photos / "b.jpg"), 0)
    assert watching.stop() == []


def test_photo_that_breaks_off_says_what_is_missing(
    engine: Face2Vec, photos: Path, faces_folder: Path
) -> None:
    watching = Watching(engine, photos)
    content = (faces_folder / "both.jpg").read_bytes()
    (photos / "a.jpg").write_bytes(content[: len(content) * 9 // 10])
    found = watching.next()
    assert (found.kind, found.photo) == ("added", str(photos / "a.jpg"))
    assert "of its rows are missing" in found.reason
    assert watching.stop() == []
    assert cli_watch._line(found).endswith(f" ({found.reason})")


@posix_only
def test_name_that_is_no_unicode_costs_nothing(
    engine: Face2Vec, photos: Path, faces_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("face2vec.watch.events.POLL_SECONDS", 0.5)
    watching = Watching(engine, photos)
    content = (faces_folder / "hopper.jpg").read_bytes()
    try:
        (photos / os.fsdecode(b"\xff.jpg")).write_bytes(content)
    except OSError as error:
        watching.stop()
        pytest.skip(f"this file system takes no such names: {error}")
    found = watching.next()
    assert (found.kind, os.fsencode(found.photo), found.faces) == (
        "added", os.fsencode(photos) + b"/\xff.jpg", 1,
    )  # fmt: skip
    shutil.copy(faces_folder / "both.jpg", photos / "b.jpg")
    assert watching.next() == Change("added", str(photos / "b.jpg"), 2)
    (photos / os.fsdecode(b"\xff.jpg")).rename(photos / os.fsdecode(b"\xfe.jpg"))
    moved = watching.next()
    assert (moved.kind, moved.before) == ("moved", found.photo)
    (photos / os.fsdecode(b"\xfe.jpg")).unlink()
    assert watching.next() == Change("deleted", moved.photo, 1)
    assert watching.stop() == []
    assert len([one for one in watching.said if "looked through every" in one]) == 1


@posix_only
@pytest.mark.parametrize("before", [False, True])
def test_folder_whose_name_is_no_unicode_costs_nothing(
    engine: Face2Vec,
    photos: Path,
    faces_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: bool,
) -> None:
    monkeypatch.setattr("face2vec.watch.events.POLL_SECONDS", 0.5)
    folder = photos / os.fsdecode(b"dir\xff")
    shutil.copy(faces_folder / "hopper.jpg", photos / "a.jpg")
    if before:
        folder.mkdir()
    watching = Watching(engine, photos)
    watching.wait_until(lambda: any("1 photo, 1 added" in one for one in watching.said))
    folder.mkdir(exist_ok=True)
    shutil.copy(faces_folder / "both.jpg", folder / "b.jpg")
    added = watching.next()
    assert (added.kind, added.photo, added.faces) == ("added", str(folder / "b.jpg"), 2)
    (photos / "a.jpg").unlink()
    assert watching.next() == Change("deleted", str(photos / "a.jpg"), 1)
    assert watching.stop() == []


def test_only_folder_that_comes_back_is_looked_at_again(
    engine: Face2Vec, photos: Path, faces_folder: Path, tmp_path: Path
) -> None:
    watching = Watching(engine, photos)
    photos.rename(tmp_path / "away")
    watching.wait_until(lambda: f"the folder {photos} is missing" in watching.said[-1])
    shutil.copy(faces_folder / "both.jpg", tmp_path / "away" / "late.jpg")
    (tmp_path / "away").rename(photos)
    assert watching.next() == Change("added", str(photos / "late.jpg"), 2)
    assert f"the folder {photos} is back" in watching.said[-1]
    assert watching.stop() == []


def test_deleted_folder_is_one_change(engine: Face2Vec, photos: Path, faces_folder: Path) -> None:
    (photos / "sub" / "deep").mkdir(parents=True)
    shutil.copy(faces_folder / "both.jpg", photos / "sub" / "a.jpg")
    shutil.copy(faces_folder / "hopper.jpg", photos / "sub" / "deep" / "b.jpg")
    watching = Watching(engine, photos)
    shutil.rmtree(photos / "sub")
    assert watching.next() == Change("deleted", str(photos / "sub"), 3)
    assert watching.stop() == []


def test_folder_that_goes_and_comes_back_is_followed_again(
    engine: Face2Vec, photos: Path, faces_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path.resolve() / "other"
    other.mkdir()
    shutil.copy(faces_folder / "hopper.jpg", photos / "a.jpg")
    watching = Watching(engine, photos, other)
    photos.rename(tmp_path / "away")
    watching.wait_until(lambda: f"the folder {photos} is missing" in watching.said[-1])
    shutil.copy(faces_folder / "both.jpg", other / "b.jpg")
    assert watching.next() == Change("added", str(other / "b.jpg"), 2)
    (tmp_path / "away").rename(photos)
    shutil.copy(faces_folder / "nobody.jpg", photos / "c.jpg")
    assert watching.next() == Change("added", str(photos / "c.jpg"), 0)
    assert any(f"the folder {photos} is back" in one for one in watching.said)
    with (photos / "a.jpg").open("ab") as file:
        file.write(b"more")
    assert watching.next() == Change("changed", str(photos / "a.jpg"), 1)
    assert watching.stop() == []


def test_subfolder_that_must_not_be_read_is_left_out(
    engine: Face2Vec, photos: Path, faces_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root, everything may be read, so what the library is asked for is looked at, too."""
    needs("watch", "watchfiles")
    import watchfiles

    asked: list[dict[str, Any]] = []
    really = watchfiles.watch

    def noted(*paths: str, **options: Any) -> Any:
        asked.append(options)
        return really(*paths, **options)

    monkeypatch.setattr(watchfiles, "watch", noted)
    closed = photos / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        watching = Watching(engine, photos)
        shutil.copy(faces_folder / "both.jpg", photos / "b.jpg")
        assert watching.next() == Change("added", str(photos / "b.jpg"), 2)
        assert watching.stop() == []
    finally:
        closed.chmod(0o700)
    assert asked[0]["ignore_permission_denied"] is True


def test_wrong_calls_are_refused(engine: Face2Vec, photos: Path, tmp_path: Path) -> None:
    needs("watch", "watchfiles")
    with pytest.raises(SettingsError, match="is not a folder"):
        watch(engine, tmp_path / "none")
    hook = Webhook("http://127.0.0.1:9/x", "secret")
    with pytest.raises(CalibrationError):  # the model has none
        next(watch(engine, photos, webhook=hook, settled=0.1))
    hook.close(0)


def test_missing_watchfiles_names_the_extra(
    engine: Face2Vec, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'face2vec\[watch\]'"):
        watch(engine, photos)


# --- who was seen -----------------------------------------------------------------------------


def test_named_person_in_a_new_photo_is_sent(photos: Path, tmp_path: Path) -> None:
    from test_watch_webhook import Server

    ada, bob = samples.people(2, seed=3)
    for number in range(3):
        (photos / f"{number}.jpg").write_bytes(ada.photo(number).jpeg())
    server = Server(200)
    with Face2Vec(tmp_path / "gallery") as engine:
        engine.add(photos)
        engine.enroll({"Ada": [photos / f"{number}.jpg" for number in range(3)]})
        hook = Webhook(server.url, "secret")
        watching = Watching(engine, photos, webhook=hook)
        (photos / "stranger.jpg").write_bytes(bob.photo(0).jpeg())
        assert watching.next().photo.endswith("stranger.jpg")
        (photos / "new.jpg").write_bytes(ada.photo(5).jpeg())
        assert watching.next() == Change("added", str(photos / "new.jpg"), 1)
        shutil.copy(photos / "new.jpg", photos / "same.jpg")  # known bytes: nobody new
        assert watching.next().kind == "copied"
        assert watching.stop() == []
        assert hook.close(60) == 0
        (sent,) = (json.loads(body) for _, _, body in server.got)
        (found,) = engine.identify(photos / "new.jpg")
        with engine._session.gallery().read() as now:
            (stored,) = now.faces_of(str(photos / "new.jpg")).records()
    server.close()
    assert sent["event"] == "person"
    assert (sent["person"], sent["photo"]) == ("Ada", str(photos / "new.jpg"))
    assert sent["face"] == stored.face.id
    assert sent["box"] == pytest.approx(stored.face.box)
    assert sent["probability"] == pytest.approx(found.probability, abs=1e-3)
    assert sent["time"].endswith("+00:00")
    assert set(sent) == {"event", "person", "photo", "face", "box", "probability", "time"}


# --- the command ------------------------------------------------------------------------------


@posix_only
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_command_prints_lines_and_ends_with_a_signal(
    photos: Path, faces_folder: Path, tiny_model: Path, tmp_path: Path, how: signal.Signals
) -> None:
    needs("watch", "watchfiles")
    shutil.copy(faces_folder / "hopper.jpg", photos)
    words = [
        "watch",
        photos,
        "--gallery",
        tmp_path / "g",
        "--model",
        tiny_model,
        "--settled",
        "0.3",
    ]
    command = [sys.executable, "-m", "face2vec", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with Started(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == f"watching {photos}: 1 photo, 1 added\n"
        shutil.copy(faces_folder / "both.jpg", photos / "b.jpg")
        assert process.stdout.readline() == f"added {photos / 'b.jpg'}: 2 faces\n"
        (photos / "b.jpg").rename(photos / "c.jpg")
        line = f"moved {photos / 'b.jpg'} to {photos / 'c.jpg'}: 2 faces\n"
        assert process.stdout.readline() == line
        (photos / "x.jpg").write_bytes(b"no photo at all")
        assert process.stdout.readline() == f"unreadable {photos / 'x.jpg'}: not a photo\n"
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
        assert (out, err) == ("", "stopped\n")
        assert process.returncode == 0
    with Face2Vec(tmp_path / "g") as engine:
        assert engine.check() == []


def test_command_needs_a_secret_to_notify(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FACE2VEC_NOTIFY_SECRET", raising=False)
    words = ["watch", str(photos), "--gallery", str(tmp_path / "g"), "--notify", "https://x.org/y"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 3
    assert "FACE2VEC_NOTIFY_SECRET" in done.stderr
    assert not (tmp_path / "g").exists()
