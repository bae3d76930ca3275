"""Paths as users write them, and atomic writing of files."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from helpers import posix_only

from face2vec import files
from face2vec.errors import NotWrittenError, SettingsError
from face2vec.files import (
    IrregularFileError,
    delete_leftovers,
    expanded,
    json_line,
    look_of,
    new_beside,
    open_regular,
    paths_to,
    put_in_place,
    trimmed,
    write_json,
    writing,
    written_whole,
)


@pytest.mark.parametrize(
    ("path", "means"),
    [
        ("~", "{home}"),
        ("~/photos", "{home}/photos"),
        (Path("~/photos/a.jpg"), "{home}/photos/a.jpg"),
        ("./~/photos", "./~/photos"),
        ("photos/~", "photos/~"),
        ("~no-such-user-here/a.jpg", "~no-such-user-here/a.jpg"),
        ("/a/b", "/a/b"),
    ],
    ids=str,
)
def test_expanded_replaces_only_a_leading_home(home: Path, path: str | Path, means: str) -> None:
    assert Path(expanded(path)) == Path(means.format(home=home))


def test_paths_to_spells_names_as_a_case_blind_folder_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path.resolve()
    (folder / "Photos").mkdir()
    (folder / "Photos" / "A.JPG").touch()
    assert list(paths_to(folder / "photos" / "a.jpg")) == [str(folder / "photos" / "a.jpg")]

    def same(one: str, other: str) -> bool:  # as on a disk that does not tell A from a
        return one.casefold() == other.casefold()

    monkeypatch.setattr(os.path, "samefile", same)
    assert list(paths_to(folder / "photos" / "a.jpg")) == [
        str(folder / "photos" / "a.jpg"),
        str(folder / "Photos" / "A.JPG"),
    ]


def test_file_is_unchanged_if_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "facts"
    path.write_text("old")

    def half(words: bytes) -> None:
        with written_whole(path) as stream:
            stream.write(words)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half(b"new")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["facts"]


def test_file_is_replaced_when_writing_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "facts"
    path.write_text("old")
    with written_whole(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_json_round_trips_names_that_are_not_utf8(tmp_path: Path) -> None:
    values = {"photo": "caf\udce9/ü.jpg", "rates": [0.5, None]}  # a name that is not UTF-8
    write_json(tmp_path / "figures.json", values)
    assert json.loads((tmp_path / "figures.json").read_text("utf-8")) == values


def test_json_has_null_for_nan(tmp_path: Path) -> None:
    values = {"tar": float("nan"), "interval": (0.5, float("nan")), "people": [{"far": 0.0}]}
    wanted = {"tar": None, "interval": [0.5, None], "people": [{"far": 0.0}]}
    assert json_line(values) == json.dumps(wanted)
    write_json(tmp_path / "figures.json", values)
    assert json.loads((tmp_path / "figures.json").read_text("utf-8")) == wanted


def refusing(times: int, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Make replacing fail a number of times, as on Windows while another process reads the file."""
    replace, seen = Path.replace, []

    def refuse(new: Path, path: Path) -> Path:
        seen.append(path)
        if len(seen) <= times:
            raise PermissionError(13, "Access is denied")
        return replace(new, path)

    monkeypatch.setattr(Path, "replace", refuse)
    return seen


def test_file_open_in_another_process_is_replaced_later_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    seen = refusing(2, monkeypatch)
    monkeypatch.setattr(files, "ON_WINDOWS", True)
    put_in_place(tmp_path / "new", tmp_path / "old")
    assert len(seen) == 3
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("old", "new")]


def test_file_that_cannot_be_replaced_raises_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "facts").write_text("old")
    monkeypatch.setattr(files, "REPLACE_SECONDS", 0.12)
    for on_windows, least in ((True, 2), (False, 1)):
        monkeypatch.setattr(files, "ON_WINDOWS", on_windows)
        with monkeypatch.context() as inner:
            seen = refusing(1000, inner)
            with pytest.raises(PermissionError), written_whole(tmp_path / "facts") as stream:
                stream.write(b"new")
        assert len(seen) >= least
        assert on_windows or len(seen) == 1
        assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("facts", "old")]


@posix_only
def test_writing_never_goes_through_a_link(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("of somebody")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("facts", "facts.new"):
        (folder / name).symlink_to(other)
    with written_whole(folder / "facts") as stream:
        stream.write(b"new")
    assert other.read_text() == "of somebody"
    assert not (folder / "facts").is_symlink()
    assert (folder / "facts").read_text() == "new"


@posix_only
def test_unfinished_file_has_another_name_each_time_and_the_usual_permissions(
    tmp_path: Path,
) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    names = [new_beside(tmp_path / "facts") for _ in range(3)]
    assert len(set(names)) == 3
    for new in names:
        assert new.parent == tmp_path
        assert new.name.startswith("facts.")
        assert len(new.name) == len("facts..new") + 32
        assert new.stat().st_mode == ordinary.stat().st_mode
        with pytest.raises(FileExistsError):
            os.close(os.open(new, os.O_CREAT | os.O_EXCL))


def test_leftovers_of_killed_processes_are_deleted_and_nothing_else(tmp_path: Path) -> None:
    kept = ["facts", "facts.new", "facts.0123.new", f"facts.{'0' * 32}.new.txt", f".{'0' * 32}.new"]
    for name in kept:
        (tmp_path / name).touch()
    mine, other = new_beside(tmp_path / "facts"), new_beside(tmp_path / "figures")
    (tmp_path / (mine.name + "-wal")).touch()
    delete_leftovers(tmp_path, "facts", seconds=60)
    assert mine.exists()
    os.utime(mine, (1, 1))
    delete_leftovers(tmp_path, "facts", seconds=60)
    assert not mine.exists()
    assert other.exists()
    delete_leftovers(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(kept)


def test_writing_deletes_leftovers_of_the_same_file_after_a_day(tmp_path: Path) -> None:
    old, new, other = (new_beside(tmp_path / name) for name in ("facts", "facts", "figures"))
    for file in (old, other):
        os.utime(file, (1, 1))
    write_json(tmp_path / "facts", {})
    assert [file.exists() for file in (old, new, other)] == [False, True, True]


@posix_only
def test_open_regular_refuses_what_is_no_regular_file_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "facts").write_text("here")
    (tmp_path / "link").symlink_to("facts")
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with open_regular(tmp_path / "facts") as stream:
        assert stream.read() == b"here"
    for name in ("link", "broken"):
        with pytest.raises(IrregularFileError, match="a link, not a regular file"):
            open_regular(tmp_path / name)
    for path in (tmp_path / "pipe", tmp_path / "folder", Path("/dev/zero")):
        with pytest.raises(IrregularFileError, match="not a regular file"):
            open_regular(path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nowhere")


def test_writing_says_which_folder_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "no folder" / "faces.csv"
    with (
        pytest.raises(NotWrittenError, match=r"there is no folder .*no folder; make it") as raised,
        writing(file) as path,
    ):
        path.write_text("x", "utf-8")
    assert f"mkdir -p '{file.parent}'" in str(raised.value)


def test_writing_says_that_the_disk_is_full(tmp_path: Path) -> None:
    with (
        pytest.raises(NotWrittenError, match=r"the disk of .*faces\.csv is full; ") as raised,
        writing(tmp_path / "faces.csv"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert isinstance(raised.value, OSError)
    assert (raised.value.code, raised.value.values) == (
        "disk-full", {"folder": str(tmp_path / "faces.csv")},
    )  # fmt: skip


def test_writing_says_what_else_is_wrong(tmp_path: Path) -> None:
    with (
        pytest.raises(NotWrittenError, match="cannot be written: permission denied; check"),
        writing(tmp_path / "faces.csv"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(SettingsError, match="it has a NUL character"), writing("a\0b"):
        pass


@pytest.mark.parametrize(
    ("one", "other"),
    [("José", "Jose\u0301"), ("a\u00a0b", "a  b"), ("a\u200bb", "ab"), ("ﬁ", "fi")],
)
def test_names_that_look_the_same_have_one_look(one: str, other: str) -> None:
    assert look_of(one) == look_of(other)
    assert look_of("Ada") != look_of("ada")
    assert look_of("Ada") != look_of("Ada 2")


def test_name_is_trimmed_of_what_shows_nothing_but_not_of_directions() -> None:
    assert trimmed("\u200b \ufeffAda\u00a0\u2060") == "Ada"
    assert trimmed("\u200fעדה\u200f") == "\u200fעדה\u200f"
    assert trimmed(" \u200b ") == ""


def test_path_with_a_nul_character_is_no_file() -> None:
    assert list(paths_to("a\0b")) == []
