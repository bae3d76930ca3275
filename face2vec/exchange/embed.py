"""Names of faces into photo files, with exiftool; the gallery then knows the new bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from face2vec.errors import PhotoError, SettingsError
from face2vec.exchange.regions import EMPTY, merge
from face2vec.exchange.sidecars import (
    TOO_LARGE,
    NamedPhoto,
    XmpExported,
    check_unchanged,
    reason_of,
)
from face2vec.exchange.xmp_tree import PacketError, utf8_of
from face2vec.files import is_object
from face2vec.gallery.rows import Rewritten
from face2vec.gallery.writer import Writer
from face2vec.photos.formats import read_photo_bytes
from face2vec.photos.packets import metadata_of

PROGRAM = "exiftool"


def exiftool() -> str:
    """Path of exiftool.

    Raises:
        SettingsError: it is not installed.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise SettingsError(
            "writing names into photos needs the program exiftool, which is not installed; install "
            "it (Debian and Ubuntu: apt-get install libimage-exiftool-perl; macOS: brew install "
            "exiftool; others: https://exiftool.org), or write sidecars"
        )
    return found


def embed(
    photos: Iterable[NamedPhoto], refused: Iterable[tuple[str, str]], writer: Writer
) -> XmpExported:
    """Write the names of photos into them. exiftool keeps each photo as ``photo.jpg_original``.

    Args:
        photos: the photos.
        refused: (photo, reason) of names that are left out.
        writer: writes to the gallery, which is told the new bytes of each photo.

    Raises:
        SettingsError: exiftool is not installed.
        MissingExtraError: defusedxml is not installed.
    """
    program = exiftool()
    written: list[str] = []
    problems = list(refused)
    unchanged = faces = 0
    copies: dict[bytes, list[NamedPhoto]] = {}
    for photo in photos:
        copies.setdefault(photo.sha256, []).append(photo)
    for sha256, same in copies.items():
        new: list[Rewritten] = []
        for photo in same:
            try:
                if _write(program, photo):
                    written.append(photo.path)
                    new.append(_rewritten(photo.path))
                else:
                    unchanged += 1
                faces += len(photo.regions)
            except (PacketError, PhotoError, OSError) as error:
                problems.append((photo.path, reason_of(error)))
        writer.note_new_bytes(sha256, new)
    return XmpExported(tuple(written), unchanged, faces, tuple(problems))


def _write(program: str, photo: NamedPhoto) -> bool:
    """Merge names into the XMP of a photo; returns whether it changed."""
    if is_object(photo.path):
        raise PacketError("it is in object storage, where photos are not changed; write sidecars")
    inside = metadata_of(photo.path)
    check_unchanged(photo)
    if inside.too_large:
        raise PacketError(TOO_LARGE)
    if len(inside.packets) > 1:
        raise PacketError("its XMP has several parts; write a sidecar")
    before = utf8_of(inside.packets[0]) if inside.packets else EMPTY
    after = merge(before, photo.regions, photo.size, inside.orientation).packet
    if after == before:
        return False
    with tempfile.TemporaryDirectory() as folder:
        packet = Path(folder, "packet.xmp")
        packet.write_bytes(after)
        # The block as it is: exiftool would otherwise rewrite what other programs have put there.
        command = [program, "-charset", "filename=utf8", "-q", f"-XMP<={packet}", photo.path]
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
        )
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise PacketError(f"exiftool: {said.replace(f' - {photo.path}', '')}")
    return True


def _rewritten(path: str) -> Rewritten:
    status = os.stat(path)  # noqa: PTH116
    content = read_photo_bytes(path)
    times = status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return Rewritten(path, *times, hashlib.sha256(content).digest())
