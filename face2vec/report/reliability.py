"""The table of a gallery's `Reliability` for terminals, and what it says in words."""

from __future__ import annotations

from collections.abc import Iterator

from face2vec.reliability import KindRate, Reliability
from face2vec.report.text import columns

NEAR = "neighbourhood"
TITLES = ("", "faces", "by the model alone", "in this gallery (95 %)")


def reliability_text(found: Reliability) -> str:
    """What to print: how many strangers are accepted where a rate is stated.

    Args:
        found: the rates.
    """
    some = found.kinds[0].faces
    looked_at = f", {some:,} of them drawn at random" if some < found.faces else ""
    about = (
        f"{found.faces:,} faces{looked_at}. Strangers accepted, divided by the stated share of "
        f"{found.far:g}; 1 is right.\n"
        "Estimated without labels, among pairs of faces of each kind:"
    )
    rows = [TITLES, *map(_row, found.kinds)]
    return "\n".join([about, "", *columns(rows)])


def reliability_remarks(found: Reliability) -> Iterator[str]:
    """Sentences that say for which faces a stated rate is not true, or not known.

    Args:
        found: the rates.
    """
    if not found.cohort:
        yield (
            "The gallery shows too few people to say how alike strangers are there, so answers "
            "rest on the model's calibration alone."
        )
    if not any(one.kind == "pose" for one in found.kinds):
        yield "Pose, size and looks of these faces are not known."
    if few := [_name(one) for one in found.kinds if one.few]:
        yield f"Too few faces to tell: {'; '.join(few)}."
    # Of faces that were chosen for their look-alikes, it is no surprise.
    high = [_name(one) for one in found.kinds if one.is_too_low and one.kind != NEAR]
    if high:
        yield f"Strangers are accepted more than twice as often as stated: {'; '.join(high)}."


def _name(one: KindRate) -> str:
    return "all faces" if one.kind == "all" else f"{one.kind}: {one.value}"


def _row(one: KindRate) -> tuple[str, str, str, str]:
    faces = f"{one.faces:,}"
    if one.few:
        return _name(one), faces, "too few", "too few"
    there = f"{one.here:.1f} ({one.low:.1f} to {one.high:.1f})"
    return _name(one), faces, f"{one.model_alone:.1f}", there
