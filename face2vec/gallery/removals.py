"""Removals that are committed and not finished: traces are left until the file is purged.

A removal stores what it does in the table ``meta``, in the transaction that deletes the rows. These
lines are deleted when the changed pages have been scrubbed, or the file rewritten, by the same
writer or, if that was killed or the disk was full, by the next one. They hold no name and no path,
only hashes of what was asked for, by which the same command recognises its own unfinished work.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from face2vec import stored
from face2vec.gallery.connection import Connection

FORGET, REMOVE = "forget", "remove"

_DUE = "unpurged"  # a key of meta; also known to older versions
_LINE = "removal "  # start of a key of meta
_CLEAN = "scrubbed"  # a key of meta
CLEAN = {_CLEAN: "[]"}
"""What `note_clean` stores in a new gallery."""


class Removal(NamedTuple):
    """A removal that is committed and not finished.

    Attributes:
        photos: how many photos were removed.
        faces: how many faces were removed.
        person: number of the person who was forgotten, 0 for photos that were removed.
        keys: hashes of what was asked for, see `key_of`.
    """

    photos: int
    faces: int
    person: int = 0
    keys: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: object) -> Removal:
        """Read what `to_json` wrote; anything else gives a removal of nothing."""
        try:
            values = stored.mapping(stored.parsed(text, "it"), "it")
            photos, faces, person = (
                stored.integer(values.get(name), name) for name in ("photos", "faces", "person")
            )
            keys = [stored.text(key, "a key") for key in stored.array(values.get("keys"), "keys")]
        except stored.StoredValueError:
            return cls(0, 0)
        return cls(photos, faces, person, tuple(keys))

    def to_json(self) -> str:
        """JSON for `from_json`."""
        return json.dumps(self._asdict())


def key_of(connection: Connection, command: str, words: Sequence[str]) -> str:
    """A hash of a command and its arguments, different in each gallery.

    Args:
        connection: to the gallery.
        command: ``FORGET`` or ``REMOVE``.
        words: its arguments.
    """
    gallery = connection.execute("SELECT value FROM meta WHERE key = 'uuid'").fetchone()
    stated = json.dumps([str(gallery), command, *words])
    return hashlib.sha256(stated.encode()).hexdigest()


def is_clean(connection: Connection) -> bool:
    """Whether every change since the file was new, or was rewritten, has been scrubbed.

    A version of face2vec that does not scrub changes the numbers that this compares.
    """
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (_CLEAN,)).fetchone()
    return found is not None and found[0] == _last_numbers(connection)


def note_clean(connection: Connection) -> None:
    """Note that the file is clean, inside the transaction that changes it, see `is_clean`."""
    numbers = _last_numbers(connection)
    connection.execute(
        "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2"
        " WHERE value <> ?2",
        (_CLEAN, numbers),
    )


def _last_numbers(connection: Connection) -> str:
    rows = connection.execute("SELECT name, seq FROM sqlite_sequence ORDER BY name").fetchall()
    return json.dumps(rows)


def request_purge(connection: Connection) -> None:
    """Have traces removed from the file when writing ends, inside a transaction."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, '1')", (_DUE,))


def begin(connection: Connection, removal: Removal) -> None:
    """Note a removal, inside the transaction that deletes its rows."""
    request_purge(connection)
    key = f"{_LINE}{uuid.uuid4()}"
    connection.execute("INSERT INTO meta VALUES (?, ?)", (key, removal.to_json()))


def is_due(connection: Connection) -> bool:
    """Whether traces of removed rows may be left in the file."""
    found = connection.execute("SELECT 1 FROM meta WHERE key = ?", (_DUE,)).fetchone()
    return found is not None or bool(unfinished(connection))


def unfinished(connection: Connection) -> list[Removal]:
    """The removals that are not finished."""
    rows = connection.execute(
        "SELECT value FROM meta WHERE key >= ? AND key < ? ORDER BY key", (_LINE, _LINE + "~")
    )
    return [Removal.from_json(text) for (text,) in rows]


def find(connection: Connection, command: str, words: Sequence[str]) -> Removal | None:
    """The unfinished removal that was asked for in these words, or None."""
    found = unfinished(connection)
    if not found:
        return None
    key = key_of(connection, command, words)
    return next((removal for removal in found if key in removal.keys), None)


def finish(connection: Connection) -> None:
    """Note that no traces of removals are left in the file."""
    connection.execute(
        "DELETE FROM meta WHERE key = ? OR (key >= ? AND key < ?)", (_DUE, _LINE, _LINE + "~")
    )
