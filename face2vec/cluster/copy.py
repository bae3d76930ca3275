"""Copies a gallery between a folder and Milvus, in either direction, and compares both."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from face2vec.errors import GalleryDamagedError, GalleryError, GalleryMismatchError
from face2vec.gallery.people import PeopleRows, rows_of
from face2vec.gallery.reader import Snapshot
from face2vec.gallery.rows import INDEXED, Entry, decoded
from face2vec.gallery.seam import FaceStore
from face2vec.gallery.writer import Writer
from face2vec.ingest.progress import Bar
from face2vec.types import Face

BATCH = 128  # contents recorded at a time
_FROM = "copied from"  # a key of meta
_SPACE = 1 << 256


@dataclass(frozen=True)
class Copied:
    """What `Face2Vec.copy_to` did.

    Attributes:
        photos: photos in the copy.
        faces: faces in the copy.
        people: people in the copy.
        known: photos that an earlier, interrupted copy had brought.
        checksum: of all faces with their embeddings, equal in both galleries, hexadecimal.
    """

    photos: int
    faces: int
    people: int
    known: int
    checksum: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return asdict(self)


def copy(source: FaceStore, target: FaceStore, writer: Writer, bar: Bar) -> Copied:
    """Copy photos, faces, embeddings, people, blocks and calibration, and compare both.

    Edits that can be undone are not copied. An interrupted copy is continued.

    Args:
        source: the gallery to copy; it must not change meanwhile.
        target: an empty gallery, or an unfinished copy of the same one.
        writer: writes to the target.
        bar: advanced by each photo.

    Raises:
        GalleryError: the target has photos of its own, or the source an unfinished upgrade.
        GalleryMismatchError: the two have other models or detectors.
        GalleryDamagedError: the copy is not equal to the source.
    """
    if not source.fingerprint.is_comparable_to(target.fingerprint):
        raise GalleryMismatchError(
            f"the galleries {source.place} and {target.place} were made with different models or "
            "detectors; copy to a place without a gallery"
        )
    with source.read() as now:
        if len(now.mapped()):
            raise GalleryError(
                f"the gallery {source.place} has faces with mapped embeddings; finish its upgrade "
                "first: face2vec upgrade"
            )
        _begin(source, target, writer)
        writer.take_over(PeopleRows([], [], [], [], rows_of(now.connection).blocked, []))
        known = _copy_photos(now, writer, bar)
        writer.take_over(_renumbered(now, target))
        calibration = now.calibration()
        if calibration is not None:
            writer.calibrate(calibration)
        return _compared(source, target, now, known)


def _begin(source: FaceStore, target: FaceStore, writer: Writer) -> None:
    with target.read() as there:
        found = there.connection.execute(
            "SELECT value FROM meta WHERE key = ?", (_FROM,)
        ).fetchone()
        photos = there.counts().photos
    if photos and (found is None or found[0] != source.uuid):
        raise GalleryError(
            f"the gallery {target.place} has photos of its own; copy to a place without a gallery"
        )
    writer.note(_FROM, source.uuid)


def _copy_photos(now: Snapshot, writer: Writer, bar: Bar) -> int:
    known = 0
    batch: list[Entry] = []
    for entries in _contents(now):
        there = [writer.recorded(entry.root, entry.path) for entry in entries]
        missing = [
            entry
            for entry, one in zip(entries, there, strict=True)
            if one is None or one.sha256 != entry.sha256
        ]
        known += len(entries) - len(missing)
        batch += missing
        bar.update(len(entries))
        if len(batch) >= BATCH:
            writer.record(batch)
            batch = []
    writer.record(batch)
    return known


def _contents(now: Snapshot) -> Iterator[list[Entry]]:
    """The photos of each content: the first with its faces, the others as links."""
    roots = {number: path for path, number in now.roots.items()}
    after = 0
    while True:
        contents = now.connection.execute(
            "SELECT id, sha256, width, height, status, reason FROM contents"
            " WHERE id > ? ORDER BY id LIMIT ?",
            (after, BATCH),
        ).fetchall()
        if not contents:
            return
        after = contents[-1][0]
        for content, sha256, width, height, status, reason in contents:
            photos = now.connection.execute(
                "SELECT root_id, path, size, mtime_ns, ctime_ns FROM photos"
                " WHERE content_id = ? ORDER BY root_id, path",
                (content,),
            ).fetchall()
            ids = now.connection.execute(
                "SELECT id FROM faces WHERE content_id = ? ORDER BY id", (content,)
            ).fetchall()
            faces = tuple(one.face for one in now.stored_faces([face for (face,) in ids]))
            entries = [
                Entry.link(roots[root], decoded(path), size, mtime_ns, sha256, ctime_ns)
                for root, path, size, mtime_ns, ctime_ns in photos
            ]
            entries[0] = replace(
                entries[0],
                width=width,
                height=height,
                status=status,
                reason=reason,
                faces=faces if status == INDEXED else (),
            )
            yield entries


def _places(now: Snapshot) -> Mapping[int, tuple[bytes, int]]:
    """SHA-256 of the photo of each face, and how many faces of it have lower numbers."""
    hashes = dict(now.connection.execute("SELECT id, sha256 FROM contents").fetchall())
    seen: Counter[int] = Counter()
    found = {}
    for face, content in zip(*(numbers.tolist() for numbers in now.contents()), strict=True):
        found[face] = hashes[content], seen[content]
        seen[content] += 1
    return found


def _renumbered(now: Snapshot, target: FaceStore) -> PeopleRows:
    """The rows about people, with the numbers that faces have in the copy."""
    rows = rows_of(now.connection)
    with target.read() as there:
        numbers = {place: face for face, place in _places(there).items()}
    new = {face: numbers[place] for face, place in _places(now).items()}
    return PeopleRows(
        [(*person, None if cover is None else new.get(cover)) for *person, cover in rows.people],
        [(new[face], person, confirmed) for face, person, confirmed in rows.members],
        [(new[face], person) for face, person in rows.refused],
        [_rising(new[face], new[other]) for face, other in rows.parted],
        rows.blocked,
        rows.ignored,
    )


def _rising(one: int, other: int) -> tuple[int, int]:
    return min(one, other), max(one, other)


def _compared(source: FaceStore, target: FaceStore, now: Snapshot, known: int) -> Copied:
    """Count and sum up both galleries.

    Raises:
        GalleryDamagedError: they differ.
    """
    with target.read() as there:
        counts = [one.counts() for one in (now, there)]
        people = [len(one.people()) for one in (now, there)]
        members = [len(one.memberships().faces) for one in (now, there)]
        sums = [checksum(one) for one in (now, there)]
    for what, (mine, theirs) in (
        ("counts", counts),
        ("people", people),
        ("faces of people", members),
        ("checksums", sums),
    ):
        if mine != theirs:
            raise GalleryDamagedError(
                f"the copy {target.place} is not equal to {source.place}: {what} {mine} and "
                f"{theirs}; delete the copy, and run the same command again"
            )
    return Copied(counts[1].photos, counts[1].faces, people[1], known, sums[1])


def checksum(now: Snapshot) -> str:
    """A checksum of all faces with their embeddings, whatever their numbers and their order.

    Returns:
        64 hexadecimal digits.
    """
    places = _places(now)
    total = 0
    for ids, embeddings in now:
        stored = {one.face.id: one.face for one in now.faces(ids.tolist()).records()}
        for face, embedding in zip(ids.tolist(), embeddings, strict=True):
            sha256, place = places[face]
            what = f"{sha256.hex()} {place} {_described(stored[face])}".encode()
            digest = hashlib.sha256(what + embedding.astype("<f4").tobytes()).digest()
            total = (total + int.from_bytes(digest)) % _SPACE
    return f"{total:064x}"


def _described(face: Face) -> str:
    return repr(
        (face.box, face.landmarks, face.confidence, face.quality, face.parts, face.time, face.track)
    )
