"""Thumbnails of faces and photos, kept in the gallery's folder until something is removed from it.

They are derived: each removal deletes all of them, so that nothing of a removed face is left.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from face2vec.files import written_whole

FOLDER = "thumbnails"
_PER_FOLDER = 1000


def thumbnail_file(gallery: Path, name: str, number: int, side: int) -> Path:
    """The file of a thumbnail.

    Args:
        gallery: folder of the gallery.
        name: what it shows, such as ``"face-12"``.
        number: number of the face or photo.
        side: its side in pixels.
    """
    return gallery / FOLDER / str(number // _PER_FOLDER) / f"{name}-{side}.webp"


def keep_thumbnail(file: Path, data: bytes) -> None:
    """Store a thumbnail, whole or not at all.

    Raises:
        OSError: it cannot be written, or the folder of the thumbnails is a link.
    """
    folder = file.parent
    for one in (folder.parent, folder):
        if one.is_symlink():
            raise OSError(f"{one} is a link")
        one.mkdir(exist_ok=True)
    with written_whole(file) as stream:
        stream.write(data)


def drop_thumbnails(gallery: Path) -> None:
    """Delete all thumbnails of a gallery; a link in their place is deleted, and not followed.

    Raises:
        OSError: they cannot be deleted.
    """
    folder = gallery / FOLDER
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def drop_thumbnails_except(gallery: Path, names: Collection[str]) -> None:
    """Delete the thumbnails of what the gallery does not have any more.

    Args:
        gallery: folder of the gallery.
        names: the names, see `thumbnail_file`, of what it has.
    """
    folder = gallery / FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return
    for file in folder.glob("*/*.webp"):
        if file.stem.rpartition("-")[0] not in names:
            file.unlink(missing_ok=True)
