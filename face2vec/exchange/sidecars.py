"""Names of faces from and to XMP, beside photos and inside them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from face2vec.errors import AddressNotAllowedError, PhotoError, SettingsError
from face2vec.exchange.regions import (
    EMPTY,
    Region,
    Regions,
    frames,
    matched,
    merge,
    regions_of,
    upright,
)
from face2vec.exchange.xmp_tree import PacketError, is_xml_text, utf8_of
from face2vec.files import IrregularFileError, composed, is_object, open_regular, written_whole
from face2vec.gallery.marked import marked_faces
from face2vec.gallery.people import checked_name
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.rows import owner_of
from face2vec.photos.discover import FoundPhoto
from face2vec.photos.packets import MAX_PACKET, Metadata, metadata_of
from face2vec.photos.storage import status_of
from face2vec.types import NO_POINTS, Box, Face

MAX_NAME = 65_536
"""Characters of the longest name that is taken from XMP."""

NOT_THERE = "not in the gallery"
CHANGED = "changed since it was indexed; index it again"
TOO_LARGE = f"its XMP has more than {MAX_PACKET:,} bytes"


@dataclass(frozen=True)
class XmpImported:
    """What `Face2Vec.import_xmp` did.

    Attributes:
        named: number of regions whose face got the name, or had it.
        people: names of the people, in the order of their first photos.
        renamed: number of the named faces that had another name before.
        without_face: (photo, name) of each region that matches no face of its photo.
        unnamed: number of regions without a name.
        unknown: photos with named regions that are not in the gallery.
        refused: (path, reason) of each file whose XMP was refused, and of each photo with a name
            that was.
    """

    named: int = 0
    people: tuple[str, ...] = ()
    renamed: int = 0
    without_face: tuple[tuple[str, str], ...] = ()
    unnamed: int = 0
    unknown: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every region with a name named a face."""
        return not (self.without_face or self.unknown or self.refused)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            **asdict(self),
            "without_face": [{"photo": one, "name": name} for one, name in self.without_face],
            "refused": [{"path": path, "reason": reason} for path, reason in self.refused],
        }


@dataclass(frozen=True)
class XmpExported:
    """What `Face2Vec.export_xmp` did.

    Attributes:
        written: files that were written.
        unchanged: number of files that said all of it already.
        faces: number of faces whose names are in these files.
        refused: (path, reason) of each photo whose names were not written.
    """

    written: tuple[str, ...] = ()
    unchanged: int = 0
    faces: int = 0
    refused: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        refused = [{"path": path, "reason": reason} for path, reason in self.refused]
        return {**asdict(self), "refused": refused}


# --- import -----------------------------------------------------------------------------------


@dataclass
class Choice:
    """The faces that regions name.

    Attributes:
        named: numbers of the faces of each name.
        regions: number of regions that named them.
        renamed: see `XmpImported`.
        without_face: see `XmpImported`.
        unnamed: see `XmpImported`.
        unknown: see `XmpImported`.
        refused: see `XmpImported`.
    """

    named: dict[str, list[int]] = field(default_factory=dict)
    regions: int = 0
    renamed: int = 0
    without_face: list[tuple[str, str]] = field(default_factory=list)
    unnamed: int = 0
    unknown: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)

    def summary(self) -> XmpImported:
        """What was done, once the faces have their names."""
        return XmpImported(
            self.regions,
            tuple(self.named),
            self.renamed,
            tuple(self.without_face),
            self.unnamed,
            tuple(self.unknown),
            tuple(self.refused),
        )


def choose(photos: Iterable[FoundPhoto], now: Snapshot) -> Choice:
    """The faces that the regions of photos name.

    Args:
        photos: the photos.
        now: the gallery.

    Raises:
        MissingExtraError: defusedxml is not installed.
    """
    choice = Choice()
    claims: dict[int, list[tuple[str, str]]] = {}  # (name, photo) of each region, by face
    for photo in photos:
        path = photo.place
        regions, inside = _read(path, choice)
        named = [one for one in regions.regions if one.name]
        choice.unnamed += len(regions.regions) - len(named)
        size = now.size_of(path) if named else None
        if named and size is None:
            choice.unknown.append(path)
        if size is None:
            continue
        orders = frames(regions.applied, size, inside.orientation)
        if not orders:
            choice.refused.append((path, "its regions are for an image of another shape"))
            continue
        faces = [one.face for one in now.faces_of(path).records() if one.face.is_placed]
        pairs = _best(named, faces, size, orders)
        marked = _said_of_marks(path, named, size, orders, now)
        for place, region in enumerate(named):
            reason = _refusal(region.name)
            if reason is not None:
                choice.refused.append((path, reason))
            elif place not in pairs and composed(region.name) in marked:
                choice.regions += 1  # of a face that was marked by hand and has the name
            elif place not in pairs:
                choice.without_face.append((path, region.name))
            else:
                claims.setdefault(pairs[place], []).append((region.name, path))
    before = {face: one.name for one in now.people() if one.name for face in one.faces}
    known: dict[str, str] = {}  # the first of the forms of each name
    for face, said in claims.items():
        names = {known.setdefault(composed(name), name) for name, _ in said}
        if len(names) > 1:
            people = " and ".join(map(repr, sorted(names)))
            choice.refused.append((said[-1][1], f"copies of it name one face {people}"))
            continue
        name = names.pop()
        choice.named.setdefault(name, []).append(face)
        choice.renamed += composed(before.get(face, name)) != composed(name)
        choice.regions += len(said)
    return choice


def _said_of_marks(
    path: str, regions: list[Region], size: tuple[int, int], orders: tuple[int, ...], now: Snapshot
) -> set[str]:
    """The names of regions that are at marks of a photo with the same name."""
    content = now.content_at(path)
    marks = [] if content is None else now.marks(content)
    names = {one.id: one.name for one in now.people()} if marks else {}
    said = set()
    for mark in marks:
        name = names.get(mark.person or 0)
        if name is None:
            continue
        same = [one for one in regions if composed(one.name) == composed(name)]
        at_mark = Face(mark.box, NO_POINTS, 1.0, id=mark.id)
        if _best(same, [at_mark], size, orders):
            said.add(composed(name))
    return said


def _best(
    regions: list[Region], faces: list[Face], size: tuple[int, int], orders: tuple[int, ...]
) -> dict[int, int]:
    """Number of the face of each region, by place, in the frame that fits most faces."""
    width, height = size
    boxes = [face.box for face in faces]
    best: dict[int, int] = {}
    for order in orders:
        placed = [
            (left * width, top * height, right * width, bottom * height)
            for left, top, right, bottom in (upright(one.box, order) for one in regions)
        ]
        pairs = matched(placed, boxes)
        if len(pairs) > len(best):
            best = pairs
    return {region: faces[face].id or 0 for region, face in best.items()}


def _refusal(name: str) -> str | None:
    """Why a text cannot be the name of a person, or None."""
    if len(name) > MAX_NAME:
        return f"a name of {len(name):,} characters; at most {MAX_NAME:,} are taken"
    try:
        checked_name(name)
    except SettingsError as error:
        return str(error)
    return None


def _read(path: str, choice: Choice) -> tuple[Regions, Metadata]:
    """The regions of a photo: of the first of its sidecars that has some, or inside the photo."""
    try:
        inside = metadata_of(path)
    except PhotoError:
        inside = Metadata()  # a photo that cannot be read can have a sidecar
    for sidecar in () if is_object(path) else sidecars_of(Path(path)):
        found = _checked(str(sidecar), lambda sidecar=sidecar: _sidecar(sidecar), choice)
        if found is not None and found.regions:
            return found, inside
    if inside.too_large:
        choice.refused.append((path, TOO_LARGE))
    for packet in inside.packets:
        found = _checked(path, lambda packet=packet: utf8_of(packet), choice)
        if found is not None and found.regions:
            return found, inside
    return Regions(), inside


def _checked(path: str, packet: Any, choice: Choice) -> Regions | None:
    try:
        return regions_of(packet())
    except (PacketError, OSError) as error:
        choice.refused.append((path, reason_of(error)))
        return None


def reason_of(error: Exception) -> str:
    """Why a file was refused, in a few words."""
    if isinstance(error, PhotoError):
        return error.reason
    if isinstance(error, OSError):
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    return str(error)


def sidecars_of(photo: Path) -> Iterator[Path]:
    """The sidecars of a photo that are there: of its full name first, then of its stem."""
    seen: set[tuple[int, int]] = set()
    for name in (photo.name, photo.stem):
        for suffix in (".xmp", ".XMP"):
            path = photo.with_name(name + suffix)
            try:
                status = path.lstat()
            except OSError:
                continue
            if (status.st_dev, status.st_ino) not in seen:  # one file where case does not matter
                seen.add((status.st_dev, status.st_ino))
                yield path


def _sidecar(path: Path) -> bytes:
    with open_regular(path) as file:
        return utf8_of(file.read(MAX_PACKET + 1))


# --- export -----------------------------------------------------------------------------------


class NamedPhoto(NamedTuple):
    """A photo with named faces.

    Attributes:
        path: full path.
        place: its path relative to the folder that it was added from.
        size: (width, height) in pixels, upright.
        stat: (bytes, mtime_ns) of the file that was indexed.
        sha256: the 32 bytes of the hash of its bytes.
        regions: the faces with their names, in fractions of the upright photo.
    """

    path: str
    place: str
    size: tuple[int, int]
    stat: tuple[int, int]
    sha256: bytes
    regions: tuple[Region, ...]


def named_photos(now: Snapshot) -> tuple[list[NamedPhoto], list[tuple[str, str]]]:
    """The photos with named faces, in order of path, and (photo, reason) of names left out."""
    names = {face: one.name for one in now.people() if one.name for face in one.faces}
    hashes = now.photo_of(sorted(names))
    found = [
        (names[one.face.id or 0], one.face.box, hashes[one.face.id or 0][0], one.photo, one.copies)
        for one in now.stored_faces(sorted(names), with_embeddings=False)
        if one.face.is_placed
    ]
    found += [
        (one.name, one.mark.box, one.sha256, one.photo, one.copies)
        for one in marked_faces(now)
        if one.name
    ]
    inside: dict[str, list[tuple[str, Box, bytes]]] = {}
    refused = []
    for name, box, sha256, photo, copies in found:
        for path in (photo, *copies):
            if is_xml_text(name.strip()):
                inside.setdefault(path, []).append((name.strip(), box, sha256))
            else:
                refused.append(
                    (path, f"XML cannot hold the name {name.strip()!r}; rename the person")
                )
    photos = []
    for path, faces in sorted(inside.items()):
        size, times, owner = now.size_of(path), now.stat_of(path), owner_of(now.roots, path)
        if size is None or times is None or owner is None or not all(size):
            continue
        regions = [Region(name, _within(box, size)) for name, box, _ in faces]
        kept = tuple(one for one in regions if one.box[0] < one.box[2] and one.box[1] < one.box[3])
        if kept:
            place = os.fsdecode(owner[1])
            photos.append(NamedPhoto(path, place, size, times, faces[0][2], kept))
    return photos, refused


def _within(box: Box, size: tuple[int, int]) -> Box:
    left, top, right, bottom = box
    width, height = size
    return (
        *(min(max(left / width, 0), 1), min(max(top / height, 0), 1)),
        *(min(max(right / width, 0), 1), min(max(bottom / height, 0), 1)),
    )


def export(
    photos: Iterable[NamedPhoto], refused: Iterable[tuple[str, str]], to: Path | None
) -> XmpExported:
    """Write the names of photos to sidecars; photo files are not touched.

    Args:
        photos: the photos.
        refused: (photo, reason) of names that are left out.
        to: folder for the sidecars, in the folders that the photos have where they were added from;
            None for beside the photos.

    Raises:
        MissingExtraError: defusedxml is not installed.
    """
    written: list[str] = []
    problems = list(refused)
    taken: dict[Path, str] = {}
    unchanged = faces = 0
    for photo in photos:
        try:
            # A gallery of unknown origin may name any file; only photos get a sidecar.
            orientation = metadata_of(photo.path).orientation
            check_unchanged(photo)
            path = _target(photo, to)
            if taken.setdefault(path, photo.path) != photo.path:
                raise PacketError(f"{path} is the sidecar of {taken[path]}, too")
            if _write(path, photo, orientation):
                written.append(str(path))
            else:
                unchanged += 1
            faces += len(photo.regions)
        except (PacketError, PhotoError, AddressNotAllowedError, OSError) as error:
            problems.append((photo.path, reason_of(error)))
    return XmpExported(tuple(written), unchanged, faces, tuple(problems))


def check_unchanged(photo: NamedPhoto) -> None:
    """Check that the file of a photo is the one that was indexed.

    Raises:
        PacketError: it is another.
        OSError: it is gone.
    """
    if status_of(photo.path)[:2] != photo.stat:
        raise PacketError(CHANGED)


def _target(photo: NamedPhoto, to: Path | None) -> Path:
    path = Path(photo.path)
    if to is None and is_object(photo.path):
        raise PacketError("it is in object storage; give a folder for the sidecars with --to")
    if to is None:
        there = next(sidecars_of(path), None)
        if there is not None and (there.stem == path.name or _is_alone(path)):
            return there
        return path.with_name(f"{path.name}.xmp")
    place = Path(photo.place)
    if place.is_absolute() or ".." in place.parts:
        raise PacketError("its path in the gallery leads out of its folder")
    target = to / place.with_name(f"{place.name}.xmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.resolve().is_relative_to(to.resolve()):
        raise PacketError(f"{target.parent} is a link that leads out of {to}")
    return target


def _is_alone(photo: Path) -> bool:
    """Whether no other photo has its stem, so that a sidecar of the stem is this photo's."""
    with os.scandir(photo.parent) as entries:
        names = [Path(entry.name) for entry in entries]
    return not any(
        one.stem == photo.stem and one.name != photo.name and one.suffix.lower() != ".xmp"
        for one in names
    )


def _write(path: Path, photo: NamedPhoto, orientation: int) -> bool:
    """Merge the names of a photo into a sidecar; returns whether it changed."""
    mode = None
    try:
        with open_regular(path) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            before = file.read(MAX_PACKET + 1)
    except FileNotFoundError:
        before = EMPTY
    except IrregularFileError as error:
        raise PacketError(f"{path} is {error.strerror}") from error
    packet = utf8_of(before)
    done = merge(packet, photo.regions, photo.size, orientation).packet
    if done == packet and mode is not None:
        return False
    with written_whole(path) as stream:
        if mode is not None and hasattr(os, "fchmod"):
            os.fchmod(stream.fileno(), mode)
        stream.write(_as_before(done, before))
    return True


def _as_before(packet: bytes, before: bytes) -> bytes:
    """A packet in UTF-8, in the encoding and with the byte order mark of the file before."""
    for mark, encoding in (
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
    ):
        if before.startswith(mark):
            return mark + packet.decode().encode(encoding)
    if b"\0" in before[:4]:
        return packet.decode().encode("utf-16-be" if before[:1] == b"\0" else "utf-16-le")
    return packet
