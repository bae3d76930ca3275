"""Which faces of a video belong together, and which of them are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from face2vec.encoding.tracks import ALIKE, MOST_FACES, Tracks
from face2vec.types import Box, Face, Place

POINTS = ((3.0, 4.0), (7.0, 4.0), (5.0, 6.0), (3.0, 8.0), (7.0, 8.0))
HERE, NEAR, THERE = (0.0, 0.0, 10.0, 10.0), (2.0, 0.0, 12.0, 10.0), (50.0, 0.0, 60.0, 10.0)


def face(angle: float, box: Box = HERE, quality: float = 0.5) -> Face:
    """A face whose similarity to another is the cosine of the difference of their angles."""
    embedding = np.array([np.cos(angle), np.sin(angle)], np.float32)
    return Face(box, POINTS, 0.99, embedding, quality=quality)


def kept(frames: Sequence[tuple[float, bool, Sequence[Face]]]) -> tuple[Face, ...]:
    tracks = Tracks()
    for time, is_cut, faces in frames:
        tracks.add(time, is_cut, faces)
    return tracks.faces()


def test_long_shot_keeps_its_best_face_only() -> None:
    rng = np.random.default_rng(0)
    qualities = rng.random(3000)
    frames = [(float(n), False, [face(0.1, quality=q)]) for n, q in enumerate(qualities)]
    (best,) = kept(frames)
    assert best.time == float(np.argmax(qualities))
    assert best.quality == qualities.max()
    assert best.track == (0.0, 2999.0)


def test_faces_that_differ_are_kept_beside_the_best() -> None:
    angle = float(np.arccos(ALIKE))
    steps = [face(0, quality=0.9), face(0.9 * angle, quality=0.5), face(1.1 * angle, quality=0.4)]
    found = kept([(float(n), False, [one]) for n, one in enumerate(steps)])
    assert [(one.time, one.quality) for one in found] == [(0.0, 0.9), (2.0, 0.4)]
    assert {one.track for one in found} == {(0.0, 2.0)}


def test_better_face_takes_the_place_of_those_like_it() -> None:
    steps = [face(0, quality=0.3), face(0.1, quality=0.2), face(0.05, quality=0.9)]
    (best,) = kept([(float(n), False, [one]) for n, one in enumerate(steps)])
    assert (best.time, best.quality) == (2.0, 0.9)


def test_faces_of_a_track_are_limited() -> None:
    frames = [(float(n), False, [face(n * 0.8, quality=n / 100)]) for n in range(40)]
    found = kept(frames)
    assert len(found) == MOST_FACES
    assert {one.track for one in found} == {(0.0, 39.0)}
    assert max(one.quality for one in found) == 0.39


def test_face_that_is_not_sure_is_not_the_best() -> None:
    doubtful = replace(face(0, quality=0.9), confidence=0.5)
    (best,) = kept([(0.0, False, [doubtful]), (1.0, False, [face(0, quality=0.1)])])
    assert best.quality == 0.1


def test_two_people_are_followed_by_likeness_across_the_picture() -> None:
    frames = [
        (0.0, False, [face(0, HERE), face(2, THERE)]),
        (1.0, False, [face(2, HERE), face(0, THERE)]),
    ]
    found = kept(frames)
    assert [(one.time, one.track) for one in found] == [(0.0, (0.0, 1.0))] * 2
    assert [one.box for one in found] == [HERE, THERE]


@pytest.mark.parametrize(
    ("similarity", "box", "is_cut", "tracks"),
    [
        (ALIKE + 0.01, THERE, False, 1),
        (ALIKE + 0.01, THERE, True, 1),
        (ALIKE - 0.01, THERE, False, 2),
        (ALIKE - 0.01, NEAR, False, 1),
        (ALIKE - 0.01, NEAR, True, 2),
        (0.1, NEAR, False, 2),
    ],
)
def test_link_needs_likeness_or_the_same_place(
    similarity: float, box: Box, is_cut: bool, tracks: int
) -> None:
    other = face(float(np.arccos(similarity)), box)
    found = kept([(0.0, False, [face(0)]), (1.0, is_cut, [other])])
    assert len({one.track for one in found}) == tracks


def test_track_goes_on_after_one_frame_without_the_person_and_not_after_two() -> None:
    once = [(0.0, False, [face(0)]), (1.0, False, []), (2.0, False, [face(0)])]
    assert [one.track for one in kept(once)] == [(0.0, 2.0)]
    twice = [(0.0, False, [face(0)]), (1.0, False, []), (2.0, False, []), (3.0, False, [face(0)])]
    assert [one.track for one in kept(twice)] == [(0.0, 0.0), (3.0, 3.0)]


def test_most_similar_faces_are_linked_first() -> None:
    frames = [(0.0, False, [face(0)]), (1.0, False, [face(0.5, HERE), face(0.1, NEAR)])]
    found = kept(frames)
    assert [(one.box, one.track) for one in found] == [(HERE, (0.0, 1.0)), (HERE, (1.0, 1.0))]


def test_track_with_a_blocked_face_is_left_out() -> None:
    frames = [
        *((float(n), False, [face(0, HERE, n / 10), face(2, THERE)]) for n in range(3)),
        (9.0, True, [face(1)]),
    ]
    for place, left in [
        (Place(HERE, 1.0), [(0.0, THERE), (9.0, HERE)]),
        (Place(NEAR, 1.0), [(0.0, THERE), (9.0, HERE)]),
        (Place(HERE, 1.5), [(0.0, THERE), (2.0, HERE), (9.0, HERE)]),
        (Place(HERE), [(0.0, THERE), (2.0, HERE), (9.0, HERE)]),
    ]:
        tracks = Tracks([place])
        for time, is_cut, faces in frames:
            tracks.add(time, is_cut, faces)
        assert [(one.time, one.box) for one in tracks.faces()] == left
