"""Overwrites what SQLite leaves of moved rows in the unused parts of pages.

With ``PRAGMA secure_delete`` SQLite overwrites a row where it is deleted, and a page that becomes
free. When it moves rows to another page, however, copies can stay in the space between the pointers
to the rows of a page and the rows themselves. A row that is deleted later is overwritten on the
page that it was moved to, and not there. So this space is overwritten with zeros on each page that
has changed, before the list of these pages, the ``-wal``, is emptied. What is unused has no meaning
to SQLite (sqlite.org/fileformat2.html, 1.6), and is not looked at by readers.

Then a removal costs what it removes, and the file need not be rewritten.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

LARGEST_PAGE = 0x02000000
"""Number of a page from which on the first byte of a page may be mistaken for its kind."""
_INTERIOR, _LEAF = (2, 5), (10, 13)
"""First byte of the pages of a tree: of an index and of a table."""
_FILE_HEADER = 100  # bytes at the start of the first page


def scrub(file: io.FileIO, page_bytes: int, pages: Iterable[int]) -> None:
    """Overwrite the unused space of some pages, and write them to the disk.

    Args:
        file: the file of the database, open for reading and writing, to which nobody else writes.
        page_bytes: size of a page.
        pages: numbers of the pages, below ``LARGEST_PAGE``.

    Raises:
        OSError: the file cannot be read or written.
    """
    changed = False
    for page in sorted(pages):
        start = (page - 1) * page_bytes
        file.seek(start)
        unused = _unused(file.read(page_bytes), _FILE_HEADER if page == 1 else 0)
        if unused is not None:
            first, count = unused
            file.seek(start + first)
            file.write(bytes(count))
            changed = True
    if changed:
        os.fsync(file.fileno())


def _unused(page: bytes, header: int) -> tuple[int, int] | None:
    """First byte and length of the unused space of a page; None if there is none but zeros.

    Args:
        page: the bytes of the page.
        header: where the header of the page begins.
    """
    kind = page[header] if len(page) > header + 12 else 0
    if kind not in (*_INTERIOR, *_LEAF):  # a page that goes on with a long row, or a free page
        return None
    rows = int.from_bytes(page[header + 3 : header + 5], "big")
    first = header + (12 if kind in _INTERIOR else 8) + 2 * rows
    end = int.from_bytes(page[header + 5 : header + 7], "big") or 1 << 16
    if not first <= end <= len(page) or not any(page[first:end]):
        return None
    return first, end - first


def pages_in_wal(wal: Path, page_bytes: int) -> set[int]:
    """Numbers of the pages in a ``-wal`` (sqlite.org/walformat.html); none without such a file.

    Raises:
        OSError: it cannot be read.
    """
    pages: set[int] = set()
    try:
        with wal.open("rb") as stream:
            salts = stream.read(32)[16:24]
            while len(frame := stream.read(24)) == 24 and frame[8:16] == salts:
                pages.add(int.from_bytes(frame[:4], "big"))
                stream.seek(page_bytes, os.SEEK_CUR)
    except FileNotFoundError:
        pass
    return pages
