"""The quality of faces, and what makes an answer about two of them less certain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from face2vec.encoding.quality import outside, quality
from face2vec.types import QualityParts

GOOD = QualityParts(
    face=0.99, size=120.0, sharpness=0.5, yaw=5.0, pitch=0.0, roll=0.0, covered=0.02, child=0.01
)


def test_quality_is_the_product_of_what_may_be_missing() -> None:
    assert quality(None, 3.0) == 1
    assert quality(None, 0.25) == 0.25
    front = replace(GOOD, face=0.8, yaw=0.0, covered=0.5)
    assert quality(front, 2.0) == pytest.approx(0.4)
    assert quality(replace(front, yaw=60.0), 2.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"child": 0.7}, "both may be children under 13"),
        ({"covered": 0.6}, "both faces are covered"),
        ({"yaw": -50.0}, "both faces are in profile"),
    ],
)
def test_pair_is_outside_if_both_faces_are(change: dict[str, float], reason: str) -> None:
    odd = replace(GOOD, **change)  # type: ignore[arg-type]
    assert outside(odd, odd) == (reason,)
    assert outside(odd, GOOD) == outside(GOOD, odd) == ()
    assert outside(odd, None) == outside(None, odd) == ()


def test_pair_is_outside_if_both_faces_are_blurred() -> None:
    blurred = replace(GOOD, sharpness=0.1)
    assert outside(blurred, blurred) == ("both faces are blurred",)
    assert outside(blurred, GOOD) == outside(GOOD, blurred) == ()


def test_pair_is_outside_if_one_face_is_no_face_or_tiny() -> None:
    assert outside(replace(GOOD, face=0.1), GOOD) == ("one may be no face",)
    assert outside(GOOD, replace(GOOD, size=17.4)) == ("one crop has only 17 pixels",)
    assert outside(GOOD, GOOD) == ()
