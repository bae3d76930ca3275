"""What SQLite leaves of moved rows is overwritten: the bytes of the files are searched for it."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from face2vec.gallery.connection import GalleryFile, write_empty
from face2vec.gallery.schema import FILE
from face2vec.gallery.scrub import pages_in_wal, scrub

TABLES = """
CREATE TABLE places (root INTEGER, path BLOB, n INTEGER, PRIMARY KEY (root, path)) WITHOUT ROWID;
CREATE TABLE vectors (id INTEGER PRIMARY KEY, bytes BLOB);
CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT);
"""
NAMES = {"places": "path", "vectors": "bytes", "names": "name", "texts": "text"}


class Changing:
    """Adds and deletes rows of every kind at random, each with a word of its own.

    Args:
        connection: to a database with ``TABLES``.
        seed: of the random choices.
    """

    def __init__(self, connection: sqlite3.Connection, seed: int) -> None:
        self._connection, self._rng = connection, np.random.default_rng(seed)
        self.there: dict[bytes, tuple[str, object]] = {}
        self.gone: set[bytes] = set()

    def transaction(self) -> None:
        """Some changes."""
        self._connection.execute("BEGIN")
        for _ in range(self._rng.integers(1, 120)):
            if self.there and self._rng.random() < 0.45:
                self._delete()
            else:
                self._add()
        self._connection.execute("COMMIT")

    def _delete(self) -> None:
        word = list(self.there)[self._rng.integers(len(self.there))]
        table, key = self.there.pop(word)
        column = "path" if table == "places" else "id"
        self._connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (key,))
        self.gone.add(word)

    def _add(self) -> None:
        word = b"W%016x" % self._rng.integers(1 << 62)
        table = self._rng.choice(list(NAMES), p=[0.4, 0.4, 0.1, 0.1])
        if table == "places":
            key: object = word + b"x" * int(self._rng.integers(150))
            self._connection.execute("INSERT INTO places VALUES (1, ?, 2)", (key,))
        elif table == "vectors":
            key = int(self._rng.integers(1 << 40))
            content = word * int(self._rng.choice([10, 120]))
            self._connection.execute("INSERT INTO vectors VALUES (?, ?)", (key, content))
        else:
            content = (word * int(self._rng.choice([1, 1, 3000]))).decode()[: 10**6]
            content = content if table == "texts" else word.decode()
            key = self._connection.execute(
                f"INSERT INTO {table} ({NAMES[table]}) VALUES (?)", (content,)
            ).lastrowid
        self.there[word] = table, key


def opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


def made(folder: Path) -> Path:
    path = folder / FILE
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA page_size = 16384")
    connection.executescript(TABLES)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    return path


def content(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


def left(folder: Path, words: set[bytes]) -> list[bytes]:
    everything = content(folder)
    return [word for word in words if word in everything]


@pytest.mark.parametrize("seed", range(6))
def test_nothing_of_deleted_rows_is_left_in_the_files(seed: int, tmp_path: Path) -> None:
    path = made(tmp_path)
    connection = opened(path)
    with io.FileIO(path, "r+") as raw:
        changing = Changing(connection, seed)
        for number in range(60):
            changing.transaction()
            if number % 3 == 2:
                pages = pages_in_wal(path.with_name(f"{FILE}-wal"), 16384)
                connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
                scrub(raw, 16384, pages)
                assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
                assert left(tmp_path, changing.gone) == []
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
    again = opened(path)  # nothing of its pages is in a cache
    assert again.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for table, column in NAMES.items():
        stored = {bytes(value[:17], "ascii") if isinstance(value, str) else value[:17]
                  for (value,) in again.execute(f"SELECT {column} FROM {table}")}  # fmt: skip
        assert stored == {word for word, (kind, _) in changing.there.items() if kind == table}
    again.close()
    assert len(changing.gone) > 1000


def test_sqlite_alone_leaves_something(tmp_path: Path) -> None:
    """Otherwise the test above would show nothing, and scrubbing could be left out."""
    found = 0
    for seed in range(8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        connection = opened(made(folder))
        changing = Changing(connection, seed)
        for _ in range(60):
            changing.transaction()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        found += len(left(folder, changing.gone))
    assert found > 0


@pytest.mark.parametrize("kind", [0, 1, 3, 14, 255])
def test_pages_of_other_kinds_are_left_alone(kind: int, tmp_path: Path) -> None:
    page = bytes([kind]) + bytes(range(256)) * 2
    path = tmp_path / "pages"
    path.write_bytes(page.ljust(1024, b"x"))
    with io.FileIO(path, "r+") as raw:
        scrub(raw, 512, [2])
    assert path.read_bytes() == page.ljust(1024, b"x")


@pytest.mark.parametrize(("rows", "start"), [(300, 400), (2, 600), (2, 3)])
def test_invalid_pages_are_left_alone(rows: int, start: int, tmp_path: Path) -> None:
    header = bytes([13, 0, 0]) + rows.to_bytes(2, "big") + start.to_bytes(2, "big") + b"\0"
    path = tmp_path / "pages"
    content = bytes(512) + header.ljust(512, b"x")
    path.write_bytes(content)
    with io.FileIO(path, "r+") as raw:
        scrub(raw, 512, [2])
    assert path.read_bytes() == content


def test_unused_space_of_a_page_is_overwritten_and_nothing_else(tmp_path: Path) -> None:
    header = bytes([13, 0, 0, 0, 2, 1, 0, 0])  # a leaf with two rows, which begin at byte 256
    page = (header + b"PTRS").ljust(256, b"x").ljust(512, b"r")
    path = tmp_path / "pages"
    path.write_bytes(bytes(512) + page)
    with io.FileIO(path, "r+") as raw:
        scrub(raw, 512, [2])
    assert path.read_bytes()[512:] == (header + b"PTRS").ljust(256, b"\0").ljust(512, b"r")


def test_wal_lists_its_pages(tmp_path: Path) -> None:
    path = made(tmp_path)
    wal = path.with_name(f"{FILE}-wal")
    assert pages_in_wal(wal, 16384) == set()
    connection = opened(path)
    connection.execute("INSERT INTO names (name) VALUES ('Ada')")
    root, index = (
        connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()[
            0
        ]
        for name in ("names", "sqlite_autoindex_names_1")
    )
    assert pages_in_wal(wal, 16384) == {root, index}
    connection.close()


def test_checkpoint_that_a_reader_prevents_keeps_the_list_of_pages(tmp_path: Path) -> None:
    write_empty(tmp_path / FILE, {"uuid": "u"})
    file = GalleryFile(tmp_path)
    writer, reader = file.connect_writer(), file.borrow()
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM meta").fetchall()
    writer.execute("INSERT INTO meta VALUES ('a', 'b')")
    before = pages_in_wal(tmp_path / f"{FILE}-wal", 16384)
    assert not file.checkpoint(writer, wait=False)
    assert pages_in_wal(tmp_path / f"{FILE}-wal", 16384) == before != set()
    file.give_back(reader)
    assert file.checkpoint(writer, wait=False)
    assert file.wal_bytes() == 0
    file.close()
