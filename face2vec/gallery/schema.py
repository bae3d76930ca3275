"""The tables of a gallery's SQLite file, their format version, and migration from older ones."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from functools import cache

from face2vec.stored import StoredValueError

FORMAT = 4
OLDEST_FORMAT = 2
"""Oldest format that can be read. The next writer migrates it, see `migrate`."""
FILE = "gallery.sqlite"


LAST_HISTORY = (
    "1103515245 * coalesce((SELECT history FROM journal ORDER BY position DESC LIMIT 1), 0)"
)
"""SQL: the value with which the checksum of the next journal line starts."""

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE roots (id INTEGER PRIMARY KEY AUTOINCREMENT, path BLOB NOT NULL UNIQUE);
CREATE TABLE contents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256 BLOB NOT NULL UNIQUE CHECK (length(sha256) = 32),
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('indexed', 'no face', 'unreadable')),
    reason TEXT NOT NULL,
    taken TEXT
);
CREATE TABLE photos (
    root_id INTEGER NOT NULL REFERENCES roots,
    path BLOB NOT NULL,
    content_id INTEGER NOT NULL REFERENCES contents,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER,
    path_crc32 INTEGER,
    PRIMARY KEY (root_id, path)
) WITHOUT ROWID;
CREATE INDEX photos_by_content ON photos (content_id);
CREATE TABLE faces (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    content_id INTEGER NOT NULL REFERENCES contents ON DELETE CASCADE,
    "left" REAL NOT NULL,
    "top" REAL NOT NULL,
    "right" REAL NOT NULL,
    "bottom" REAL NOT NULL,
    landmarks BLOB NOT NULL,
    confidence REAL NOT NULL,
    quality REAL,
    embedding_crc32 INTEGER NOT NULL,
    parts BLOB,
    time REAL,
    track_begin REAL,
    track_end REAL
);
CREATE INDEX faces_by_content ON faces (content_id);
CREATE TABLE embeddings (
    face_id INTEGER PRIMARY KEY REFERENCES faces ON DELETE CASCADE,
    embedding BLOB NOT NULL
);
CREATE TABLE journal (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    change TEXT NOT NULL CHECK (change IN ('+', '-')),
    face_id INTEGER NOT NULL,
    history INTEGER NOT NULL
);
CREATE TRIGGER face_added AFTER INSERT ON faces BEGIN
    INSERT INTO journal (change, face_id, history)
    VALUES ('+', NEW.id, (@before + 2 * NEW.id + NEW.embedding_crc32) % 2147483647);
END;
CREATE TRIGGER face_removed AFTER DELETE ON faces BEGIN
    INSERT INTO journal (change, face_id, history)
    VALUES ('-', OLD.id, (@before + 2 * OLD.id + 1 + OLD.embedding_crc32) % 2147483647);
END;
""".replace(
    # "history" is a checksum of all changes up to a position, embeddings included. It differs
    # between two galleries that diverged after one backup. The prime keeps products below 2^63.
    "@before",
    LAST_HISTORY,
)

# The people: format 3 has these tables in addition to those of format 2.
PEOPLE_SCHEMA = """
CREATE TABLE people (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT UNIQUE,
    hidden INTEGER,
    cover INTEGER
);
CREATE TABLE memberships (
    face_id INTEGER PRIMARY KEY REFERENCES faces ON DELETE CASCADE,
    person_id INTEGER NOT NULL REFERENCES people ON DELETE CASCADE,
    said INTEGER NOT NULL CHECK (said IN (0, 1))
);
CREATE INDEX memberships_by_person ON memberships (person_id);
CREATE TABLE refusals (
    face_id INTEGER NOT NULL REFERENCES faces ON DELETE CASCADE,
    person_id INTEGER NOT NULL REFERENCES people ON DELETE CASCADE,
    PRIMARY KEY (face_id, person_id)
) WITHOUT ROWID;
CREATE INDEX refusals_by_person ON refusals (person_id);
CREATE TABLE sayings (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    what TEXT NOT NULL,
    before TEXT NOT NULL,
    made INTEGER
);
CREATE TABLE forgotten (
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    "left" REAL, "top" REAL, "right" REAL, "bottom" REAL, time REAL
);
CREATE INDEX forgotten_by_content ON forgotten (sha256);
"""


# The ignored faces: format 4 has this table in addition to those of format 3.
IGNORED_SCHEMA = """
CREATE TABLE ignored (
    face_id INTEGER PRIMARY KEY,
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    "left" REAL NOT NULL,
    "top" REAL NOT NULL,
    "right" REAL NOT NULL,
    "bottom" REAL NOT NULL,
    landmarks BLOB,
    confidence REAL NOT NULL,
    quality REAL,
    embedding_crc32 INTEGER NOT NULL,
    embedding BLOB,
    parts BLOB,
    time REAL,
    track_begin REAL,
    track_end REAL
);
CREATE INDEX ignored_by_content ON ignored (sha256);
"""

# Pairs of faces that show different people, as a user has said; the first number is the lower one.
APART_SCHEMA = """
CREATE TABLE apart (
    face_id INTEGER NOT NULL REFERENCES faces ON DELETE CASCADE,
    other_id INTEGER NOT NULL REFERENCES faces ON DELETE CASCADE,
    PRIMARY KEY (face_id, other_id)
) WITHOUT ROWID;
CREATE INDEX apart_by_other ON apart (other_id);
"""

# Faces that a user has marked by hand and that have no landmarks, so no embedding either.
MARKS_SCHEMA = """
CREATE TABLE marks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    content_id INTEGER NOT NULL REFERENCES contents ON DELETE CASCADE,
    "left" REAL NOT NULL,
    "top" REAL NOT NULL,
    "right" REAL NOT NULL,
    "bottom" REAL NOT NULL,
    person_id INTEGER REFERENCES people ON DELETE SET NULL
);
CREATE INDEX marks_by_content ON marks (content_id);
CREATE INDEX marks_by_person ON marks (person_id);
"""

WHOLE_SCHEMA = SCHEMA + PEOPLE_SCHEMA + IGNORED_SCHEMA + APART_SCHEMA + MARKS_SCHEMA
"""The tables of a new gallery."""

_LATER_TABLES = {
    **dict.fromkeys(("people", "memberships", "refusals", "sayings", "forgotten"), "people"),
    "ignored": "ignored",
    "apart": "apart",
    "marks": "marks",
}
"""Tables that older galleries have not: each must be there if the named one is."""
_IN_VIDEO = {"time": "REAL", "track_begin": "REAL", "track_end": "REAL"}
LATER_COLUMNS: dict[str, dict[str, str]] = {
    "contents": {"taken": "TEXT"},
    "faces": {"parts": "BLOB", **_IN_VIDEO},
    "photos": {"ctime_ns": "INTEGER", "path_crc32": "INTEGER"},
    "people": {"hidden": "INTEGER", "cover": "INTEGER"},
    "sayings": {"made": "INTEGER"},
    "forgotten": {"time": "REAL"},
    "ignored": {"parts": "BLOB", **_IN_VIDEO},
}
"""Columns that the first galleries do not have, with their types: the parts of a face's quality;
the time of a file's last change of any kind, and the checksum of its path; whether a person is
hidden, and the face to show; when a photo was taken, NULL if nobody has looked, and empty if it
does not say so; the time of an edit in seconds since 1970; when a face is seen in a
video. They need no new format: what does not know them leaves them empty."""

# Faces with mapped embeddings; the table exists only while there are some.
MAPPED = "mapped"
MAPPED_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS {MAPPED} (
    face_id INTEGER PRIMARY KEY REFERENCES faces ON DELETE CASCADE
)
"""


class Whole(ABC):
    """A connection to a gallery that is no SQLite file and has all tables and columns."""

    @abstractmethod
    def last_number(self, table: str) -> int:
        """The largest number that a row of a table has ever had, 0 if there was none."""


def last_number(connection: sqlite3.Connection | Whole, table: str) -> int:
    """The largest number that a row of a table has ever had, 0 if there was none."""
    if isinstance(connection, Whole):
        return connection.last_number(table)
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return last[0] if last else 0


def check_meta(connection: sqlite3.Connection) -> None:
    """Check that ``meta``, which is read before all else, is a table.

    Raises:
        StoredValueError: it is something else, such as a view.
    """
    _check_table(connection, "meta")


def check_schema(connection: sqlite3.Connection) -> None:
    """Check that the file has the tables of a gallery, and nothing that runs when they are used.

    A view in the place of a table could go on without end, and a trigger do anything to the rows.

    Raises:
        StoredValueError: it has a view, a virtual table or a trigger of its own, or a table or
            column is missing or another.
    """
    triggers = _made()[1]
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    for kind, name, sql in rows:
        virtual = kind == "table" and str(sql).upper().startswith("CREATE VIRTUAL")
        if kind == "view" or virtual or (kind == "trigger" and triggers.get(name) != sql):
            what = "virtual table" if virtual else kind
            raise StoredValueError(f"it has the {what} {name!r}, which is not one of a gallery")
    names = {name for kind, name, _ in rows if kind == "table"}
    for table in _made()[0]:
        if table in names or _LATER_TABLES.get(table, "meta") in names:
            _check_table(connection, table)


def _check_table(connection: sqlite3.Connection, table: str) -> None:
    found = connection.execute("SELECT type FROM sqlite_master WHERE name = ?", (table,)).fetchall()
    if found != [("table",)]:
        raise StoredValueError(f"{table!r} is not a table")
    columns = _columns(connection, table)
    for name, (kind, key, _) in _made()[0][table].items():
        if name not in columns and name in LATER_COLUMNS.get(table, ()):
            continue
        if columns.get(name) != (kind, key, 0):
            raise StoredValueError(f"the column {name!r} of {table!r} is missing or another")


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, tuple[str, int, int]]:
    """(type, place in the primary key, 0 unless it is computed) of each column."""
    rows = connection.execute(f"PRAGMA table_xinfo({table})")
    return {name: (kind, key, hidden) for _, name, kind, _, _, key, hidden in rows}


@cache
def _made() -> tuple[dict[str, dict[str, tuple[str, int, int]]], dict[str, str]]:
    """The columns of each table, and the triggers, of a new gallery."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(WHOLE_SCHEMA)
        select = "SELECT name, sql FROM sqlite_master WHERE type = ? AND name NOT LIKE 'sqlite_%'"
        tables = [name for name, _ in connection.execute(select, ("table",))]
        return (
            {table: _columns(connection, table) for table in tables},
            dict(connection.execute(select, ("trigger",))),
        )
    finally:
        connection.close()


def has_people(connection: sqlite3.Connection) -> bool:
    """Whether the gallery has the tables of people, which format 2 has not."""
    return has_table(connection, "people")


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Whether there is a table with this name."""
    if isinstance(connection, Whole):
        return name != MAPPED
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    return bool(found)


def has_column(connection: sqlite3.Connection, table: str, column: str) -> bool:
    """Whether a table has a column."""
    if isinstance(connection, Whole):
        return True
    return any(row[1] == column for row in connection.execute(f"PRAGMA table_info({table})"))


def missing_columns(connection: sqlite3.Connection, table: str) -> set[str]:
    """Which of ``LATER_COLUMNS`` a table does not have."""
    if isinstance(connection, Whole):
        return set()
    there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    return set(LATER_COLUMNS[table]) - there


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a gallery of an older format to ``FORMAT``, in one transaction."""
    for table, columns in LATER_COLUMNS.items():
        if has_table(connection, table):
            missing = missing_columns(connection, table)
            for column in (name for name in columns if name in missing):
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {columns[column]}")
    if not has_table(connection, "ignored"):
        people = "" if has_people(connection) else PEOPLE_SCHEMA
        connection.executescript(
            f"BEGIN IMMEDIATE; {people} {IGNORED_SCHEMA}"
            f"UPDATE meta SET value = '{FORMAT}' WHERE key = 'format'; COMMIT;"
        )
    if not has_table(connection, "apart"):
        connection.executescript(f"BEGIN IMMEDIATE; {APART_SCHEMA} COMMIT;")
    if not has_table(connection, "marks"):
        connection.executescript(f"BEGIN IMMEDIATE; {MARKS_SCHEMA} COMMIT;")
