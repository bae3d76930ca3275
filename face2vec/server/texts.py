"""The texts of the pages in several languages.

The catalogue of a language is ``texts/CODE.json``. English has every key but those of routes, whose
words are in the API; what another language lacks is shown in English.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "texts"
DEFAULT = "en"
COOKIE = "face2vec_language"
"""Keeps the language that was chosen on a page."""


@cache
def languages() -> tuple[str, ...]:
    """Codes of the languages that there are, English first."""
    codes = sorted(file.stem for file in FOLDER.glob("*.json"))
    return (DEFAULT, *(code for code in codes if code != DEFAULT))


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """The texts of a language by key."""
    texts: dict[str, str] = json.loads((FOLDER / f"{DEFAULT}.json").read_text("utf-8"))
    if language in languages() and language != DEFAULT:
        texts |= json.loads((FOLDER / f"{language}.json").read_text("utf-8"))
    return texts


def text_of(language: str) -> Callable[..., str]:
    """The function that gives the texts of a language, by key and values for their places."""
    known = catalogue(language)

    def text(key: str, **parts: Any) -> str:
        return known[key].format(**parts)

    return text


def language_asked(cookies: Mapping[str, str], headers: Mapping[str, str]) -> str | None:
    """The language that was chosen, or that of the browser; None if a request names none."""
    if (chosen := cookies.get(COOKIE, "")) in languages():
        return chosen
    accepted = headers.get("accept-language")
    return None if accepted is None else preferred(accepted)


def preferred(accepted: str) -> str:
    """The best language for the header ``Accept-Language``."""
    wanted: list[tuple[float, str]] = []
    for part in accepted.split(",")[:20]:
        code, _, weight = part.strip().partition(";q=")
        try:
            wanted.append((-float(weight or 1), code.partition("-")[0].lower()))
        except ValueError:
            continue
    for _, code in sorted(wanted, key=lambda one: one[0]):
        if code in languages():
            return code
    return DEFAULT


def number(value: float, language: str) -> str:
    """A whole number with separators of thousands."""
    text = f"{value:,.0f}"
    return text.replace(",", ".") if language == "de" else text
