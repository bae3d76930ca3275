"""Files that are being written, until they are complete."""

from __future__ import annotations

import os
from pathlib import Path

from face2vec.watch.settling import Settling


def test_file_is_ready_when_it_has_been_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    waiting = Settling(2)
    waiting.note(str(file), 10)
    assert waiting.ready(11.9) == []
    assert len(waiting) == 1
    assert waiting.ready(12) == [str(file)]
    assert waiting.ready(20) == []
    assert len(waiting) == 0


def test_file_that_grows_or_is_touched_begins_again(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    waiting = Settling(2)
    waiting.note(str(file), 10)
    file.write_bytes(b"one two")  # without a further note
    assert waiting.ready(12) == []
    os.utime(file, (1, 1))
    assert waiting.ready(14) == []
    assert waiting.ready(15) == []
    waiting.note(str(file), 15.5)
    assert waiting.ready(17) == []
    assert waiting.ready(17.5) == [str(file)]


def test_file_that_is_gone_empty_or_no_file_is_dropped(tmp_path: Path) -> None:
    waiting = Settling(2)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name in ("empty", "folder", "gone"):
        waiting.note(str(tmp_path / name), 0)
    assert waiting.ready(0.1) == []
    assert len(waiting) == 0


def test_ready_files_come_in_order(tmp_path: Path) -> None:
    waiting = Settling(1)
    for name in "cab":
        (tmp_path / name).write_bytes(b"x")
        waiting.note(str(tmp_path / name), 0)
    assert waiting.ready(1) == [str(tmp_path / name) for name in "abc"]
