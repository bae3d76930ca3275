"""What is handed from one step to the next."""

from __future__ import annotations

from face2vec.types import Box, Face, nearest_to

POINTS = ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0))


def face(box: Box) -> Face:
    return Face(box, POINTS, 1.0)


def test_nearest_to_uses_the_centre_of_the_box() -> None:
    faces = [face((x, 0.0, x + 10, 10.0)) for x in (0.0, 40.0, 90.0)]
    assert nearest_to(faces, 50, 5) is faces[1]
    assert nearest_to(faces, 100, 5) is faces[2]


def test_nearest_to_uses_both_axes() -> None:
    below, beside = face((0.0, 60.0, 10.0, 70.0)), face((30.0, 0.0, 40.0, 10.0))
    assert nearest_to([below, beside], 5, 5) is beside


def test_nearest_to_of_equals_is_the_first_and_of_none_is_none() -> None:
    left, right = face((0.0, 0.0, 10.0, 10.0)), face((20.0, 0.0, 30.0, 10.0))
    assert nearest_to([right, left], 15, 5) is right
    assert nearest_to([], 15, 5) is None
