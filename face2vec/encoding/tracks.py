"""Follows people through the frames of a video, and keeps the faces of each that are worth it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from face2vec.types import Face, Place, overlap

ALIKE = 0.7
"""Similarity from which on two faces are alike: those of successive frames show one person wherever
they are, and of one track only the better is kept.

It is far above the thresholds of one false accept in a thousand. A person who is turned, lit or
covered in another way is not alike: that costs one more face, and no face of anybody is lost."""
SAME_SPOT, PLAUSIBLE = 0.3, 0.2
"""Overlap of the boxes, and similarity, from which on faces of one scene show one person."""
MISSED_FRAMES = 1
"""Frames in a row without the person after which a track still goes on."""
MOST_FACES = 5
"""Most faces that are kept of a track."""


@dataclass(eq=False)
class _Track:
    """One person from the first to the last frame in a row.

    Attributes:
        begin: time of the first frame.
        end: time of the last frame.
        number: number of the last frame.
        last: the face there.
        kept: the faces to be stored, best first.
        is_blocked: whether one of its faces is not to be stored, so that none is.
    """

    begin: float
    end: float
    number: int
    last: Face
    kept: list[Face] = field(default_factory=list)
    is_blocked: bool = False

    def add(self, face: Face) -> None:
        """Keep a face if no better face is like it."""
        alike = [one for one in self.kept if _similarity(one, face) >= ALIKE]
        if any(_worth(one) >= _worth(face) for one in alike):
            return
        rest = [one for one in self.kept if all(one is not other for other in alike)]
        self.kept = sorted([*rest, face], key=_worth, reverse=True)[:MOST_FACES]


class Tracks:
    """The faces of a video, added frame by frame.

    Two faces of successive frames are of one track if they are alike, or if their boxes overlap and
    the scene has not changed between them. Of a track the best face is kept, and others only if
    they differ from all better ones: of a long shot a few faces, however long it is.

    Args:
        blocked: places of faces that were forgotten or ignored; their whole tracks are left out.
    """

    def __init__(self, blocked: Sequence[Place] = ()) -> None:
        self._blocked = blocked
        self._open: list[_Track] = []
        self._kept: list[Face] = []
        self._number = 0

    def add(self, time: float, is_cut: bool, faces: Sequence[Face]) -> None:
        """Add the faces of the next frame.

        Args:
            time: time of the frame in seconds.
            is_cut: whether the scene has changed since the frame before.
            faces: its faces with their embeddings.
        """
        self._number += 1
        oldest = self._number - 1 - MISSED_FRAMES
        for gone in [one for one in self._open if one.number < oldest]:
            self._close(gone)
        faces = [replace(face, time=time) for face in faces]
        tracks = self._linked(faces, is_cut)
        for face, track in zip(faces, tracks, strict=True):
            if track is None:
                track = _Track(time, time, self._number, face)
                self._open.append(track)
            track.end, track.number, track.last = time, self._number, face
            track.is_blocked |= any(place.is_of(face.box, time) for place in self._blocked)
            track.add(face)

    def faces(self) -> tuple[Face, ...]:
        """The faces to be stored, with time and track, in order of time; ends all tracks.

        Of faces at one time, the one further to the left comes first.
        """
        for track in list(self._open):
            self._close(track)
        return tuple(sorted(self._kept, key=lambda face: (face.time, face.box)))

    def _linked(self, faces: Sequence[Face], is_cut: bool) -> list[_Track | None]:
        """The track of each face, or None; the most similar are linked first."""
        pairs = []
        for i, face in enumerate(faces):
            for j, track in enumerate(self._open):
                similarity = max(_similarity(one, face) for one in (track.last, *track.kept))
                is_there = not is_cut and overlap(track.last.box, face.box) >= SAME_SPOT
                if similarity >= ALIKE or (is_there and similarity >= PLAUSIBLE):
                    pairs.append((-similarity, i, j))
        found: dict[int, int] = {}
        for _, i, j in sorted(pairs):
            if i not in found and j not in found.values():
                found[i] = j
        return [self._open[found[i]] if i in found else None for i in range(len(faces))]

    def _close(self, track: _Track) -> None:
        self._open.remove(track)
        if not track.is_blocked:
            self._kept += [replace(one, track=(track.begin, track.end)) for one in track.kept]


def _similarity(one: Face, other: Face) -> float:
    assert one.embedding is not None
    assert other.embedding is not None
    return float(np.vdot(one.embedding, other.embedding))


def _worth(face: Face) -> tuple[bool, float, float]:
    """What the best face has most of."""
    return face.is_sure, face.quality or 0.0, face.confidence
