"""What errors and reasons of the engine are called on the pages, in the language of the reader.

The engine gives a code and values; the words are in the catalogue. Why a photo cannot be read is
stored in the gallery in English, as the command line shows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from face2vec.errors import Face2VecError, PhotoError, kind_of
from face2vec.server.texts import catalogue, number
from face2vec.types import Reason

BUG = "an error in face2vec: "
"""Begins the words of an error that was not foreseen."""

_PARTLY = tuple(
    (key, re.compile(pattern))
    for key, pattern in (
        ("rows", r"(?P<percent>\d+)% of its rows are missing"),
        ("detail", r"detail is missing in (?P<percent>\d+)% of its rows"),
        ("breaks-off", r"breaks off after (?P<time>[\d:.]+)"),
        ("needs", r"needs face2vec\[(?P<extra>\w+)\]"),
        ("slow", r"it took more than (?P<seconds>\d+) seconds"),
    )
)
"""Reasons that have a value."""


_CALIBRATED = re.compile(
    r"(?P<photos>[\d,]+) (?P<kind>photos|small photos) of (?P<people>[\d,]+) people of"
    r" (?P<source>.+)"
)
"""The description of the calibration that is a part of face2vec."""


def _said(key: str, language: str, values: Mapping[str, Any]) -> str | None:
    words = catalogue(language).get(key)
    try:
        return None if words is None else words.format_map(values)
    except KeyError:  # the error of this class does not name it
        return None


def code_of(error: Face2VecError) -> tuple[str, Mapping[str, Any]]:
    """The code of an error, or the word for its class, and what its message names."""
    if isinstance(error, PhotoError) and not error.code:
        return "photo", {"photo": error.photo, "reason": error.reason}
    return error.code or kind_of(type(error)), error.values


def problem_in_words(
    code: str, values: Mapping[str, Any], language: str, detail: str = ""
) -> str | None:
    """The words for an error; None if the catalogue has none.

    Args:
        code: see `Face2VecError`.
        values: what its message names.
        language: of the reader.
        detail: the message in English.
    """
    shown = {"detail": detail, **values}
    if "reason" in shown:
        shown["reason"] = reason_in_words(str(shown["reason"]), language)
    if "kind" in shown:
        shown["kind"] = _said(f"js.kind.{shown['kind']}", language, {}) or shown["kind"]
    if isinstance(shown.get("names"), list):
        shown["names"] = ", ".join(map(str, shown["names"]))
    if "writer" in shown:
        shown["writer"] = _writer(str(shown["writer"]), language)
    return _said(f"error.{code}", language, shown)


def _writer(words: str, language: str) -> str:
    found = re.fullmatch(r"process (?P<process>\d+) on (?P<host>.+) since (?P<since>\S+)", words)
    if found:
        return _said("writer.process", language, found.groupdict()) or words
    return _said("writer.other", language, {}) or words


def reason_in_words(reason: str, language: str) -> str:
    """Why a photo cannot be read, or what of it is missing, in a language.

    Args:
        reason: as the gallery has it, in English.
        language: of the reader.
    """
    for key, pattern in _PARTLY:
        if found := pattern.fullmatch(reason):
            return _said(f"reason.{key}", language, found.groupdict()) or reason
    return _said(f"reason.{reason}", language, {}) or reason


def doubt_in_words(reason: Reason, language: str) -> str:
    """Why a probability is less certain than stated, in a language."""
    return _said(f"doubt.{reason.code}", language, reason.values) or str(reason)


def calibration_in_words(data: str, language: str) -> str:
    """What a calibration was fitted on, in a language.

    Args:
        data: its description: that of face2vec's own, or what a user has called the photos.
        language: of the reader.
    """
    found = _CALIBRATED.fullmatch(data)
    if found is None:
        return _said("calibration.other", language, {"source": data}) or data
    shown = found.groupdict()
    for name in ("photos", "people"):
        shown[name] = number(int(shown[name].replace(",", "")), language)
    key = f"calibration.{shown.pop('kind').replace(' ', '-')}"
    return _said(key, language, shown) or data


def job_in_words(
    problem: Face2VecError | None, error: str, language: str, *, hides_paths: bool
) -> str:
    """Why a job has failed, or waits, in a language; empty if neither.

    Args:
        problem: the error that it has failed with or waits for, or None.
        error: its words in English; empty while it waits.
        language: of the reader.
        hides_paths: leave out what may name a path.
    """
    if problem is None:
        if error.startswith(BUG) and not hides_paths:
            return _said("error.job-bug", language, {"error": error.removeprefix(BUG)}) or error
        return error and (_said("error.job", language, {}) or error)
    if hides_paths and code_of(problem)[0] != "job-cut":  # which names none
        return _said("error.job" if error else "writer.other", language, {}) or ""
    return problem_in_words(*code_of(problem), language, str(problem)) or str(problem)
