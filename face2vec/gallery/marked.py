"""The faces of a gallery that were marked by hand and have no landmarks, with their photos."""

from __future__ import annotations

from collections.abc import Iterable

from face2vec import stored
from face2vec.errors import GalleryError
from face2vec.gallery.listing import Wanted, photo_page
from face2vec.gallery.reader import Snapshot
from face2vec.types import Mark, MarkedFace

MOST_COPIES = 100_000


def marked_faces(now: Snapshot, marks: Iterable[Mark] | None = None) -> list[MarkedFace]:
    """Marks with the photos that they are in, in order of number.

    Args:
        now: the gallery.
        marks: which; None for all.

    Raises:
        GalleryError: a photo has left the gallery.
    """
    wanted = now.all_marks() if marks is None else list(marks)
    names = {person.id: person.name for person in now.people()} if wanted else {}
    found = []
    for mark in wanted:
        row = now.connection.execute(
            "SELECT sha256, width, height FROM contents WHERE id = ?", (mark.content,)
        ).fetchone()
        photos = [one.path for one in photo_page(now, Wanted(content=mark.content), 0, MOST_COPIES)]
        if row is None or not photos:
            raise GalleryError(f"the photo of mark {mark.id} has left the gallery")
        sha256, width, height = row
        size = stored.integer(width, "a width"), stored.integer(height, "a height")
        name = None if mark.person is None else names.get(mark.person)
        found.append(
            MarkedFace(
                mark, name, photos[0], tuple(photos[1:]), stored.blob(sha256, "a hash"), size
            )
        )
    return found
