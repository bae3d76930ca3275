"""Checks of what callers pass: one line that names the argument, what was given, what is wanted.

Without them, a wrong call fails far inside, or does something else: a path given in place of a list
of photos is a list of its letters.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeVar

from face2vec.errors import SettingsError
from face2vec.types import Box, Face, Photo

SHOWN = 60
"""Characters of a text that a message shows."""

One = TypeVar("One")


def described(value: object) -> str:
    """What a value is, in a few words: ``the text 'a.jpg'``, ``an array float32 (512,)``."""
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, str):
        shown = repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}…")
        return f"the text {shown}" + (f" of {len(value):,} characters" * (len(value) > SHOWN))
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value):,} bytes"
    if isinstance(value, os.PathLike):
        return f"the path {os.fspath(value)!r}"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        shape = ", ".join(str(side) for side in value.shape) + "," * (len(value.shape) == 1)
        return f"an array {value.dtype} ({shape})"
    if isinstance(value, list | tuple | set | dict):
        return f"a {type(value).__name__} of {len(value):,}"
    return f"an object of type {type(value).__name__}"


def refusal(name: str, value: object, wanted: str, hint: str = "") -> SettingsError:
    """The error for an argument.

    Args:
        name: the argument.
        value: what was given.
        wanted: what it must be.
        hint: what to do.
    """
    more = f"; {hint}" if hint else ""
    return SettingsError(f"{name} must be {wanted}, not {described(value)}{more}")


def whole(name: str, value: object, least: int) -> int:
    """A whole number of any type that has one, such as NumPy's.

    Raises:
        SettingsError: it is not a whole number, or below ``least``.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        below = isinstance(value, int) and not isinstance(value, bool)
        wanted = f"at least {least}" if below else f"a whole number of at least {least}"
        raise refusal(name, value, wanted)
    return number


def optional_whole(name: str, value: object, least: int) -> int | None:
    """A whole number, or None.

    Raises:
        SettingsError: it is neither, or below ``least``.
    """
    return None if value is None else whole(name, value, least)


def within(name: str, value: object, low: float, high: float) -> float:
    """A number in a range.

    Raises:
        SettingsError: it is not a number, or outside.
    """
    text = isinstance(value, str | bytes | bool) or value is None
    try:
        number = math.nan if text else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        raise refusal(name, value, f"a number from {low:g} to {high:g}")
    return number


def optional_within(name: str, value: object, low: float, high: float) -> float | None:
    """A number in a range, or None.

    Raises:
        SettingsError: it is neither, or outside.
    """
    return None if value is None else within(name, value, low, high)


def path(name: str, value: object) -> str:
    """A path as text.

    Raises:
        SettingsError: it is not a path, or has a NUL character, which no path has.
    """
    found = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(found, str):
        raise refusal(name, value, "a path")
    if "\0" in found:
        raise refusal(name, value, "a path without a NUL character")
    return found


def optional_paths(name: str, values: object) -> None:
    """Check several full paths in a collection, or None.

    Raises:
        SettingsError: it is one path, or something else.
    """
    several = isinstance(values, Collection) and not isinstance(values, str | bytes)
    if values is not None and not (several and all(isinstance(one, str) for one in values)):  # type: ignore[attr-defined]
        raise refusal(name, values, "a list of paths as text, or None")


def function(name: str, value: One) -> One:
    """A function, or None.

    Raises:
        SettingsError: it cannot be called.
    """
    if value is not None and not callable(value):
        raise refusal(name, value, "a function or None")
    return value


def text(name: str, value: object) -> str:
    """Text.

    Raises:
        SettingsError: it is something else.
    """
    if not isinstance(value, str):
        raise refusal(name, value, "text")
    return value


def some_of(name: str, values: object, allowed: Sequence[str]) -> None:
    """Check several words.

    Raises:
        SettingsError: it is one text, or a word is not allowed.
    """
    is_list = isinstance(values, Iterable) and not isinstance(values, str)
    if not is_list or not set(values) <= set(allowed):  # type: ignore[call-overload]
        raise SettingsError(
            f"{name} must be some of {', '.join(map(repr, allowed))} in a list, not {values!r}"
        )


def who(name: str, value: object) -> int | str:
    """The number or the name of a person.

    Raises:
        SettingsError: it is neither.
    """
    if isinstance(value, str):
        return value
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < 0 or isinstance(value, bool):
        raise refusal(name, value, "a number, a name or a Person")
    return number


def name_of_new(who: object, name: str | None) -> None:
    """Check that a name is given only without a person, for a new one.

    Raises:
        SettingsError: there are both.
    """
    if name is not None and who is not None:
        raise SettingsError("give a person or the name of a new one, not both")


def several_people(values: Any) -> list[Any]:
    """People in a list or another iterable, at least one.

    Raises:
        SettingsError: it is one person, or there is none.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise refusal("people", values, "a list of numbers, names or Person objects")
    some = list(values)
    if not some:
        raise SettingsError("people is empty; give one or more numbers, names or Person objects")
    return some


def numbers(name: str, values: Iterable[object]) -> None:
    """Check numbers of faces.

    Raises:
        SettingsError: one of them is not a number from 1.
    """
    for value in values:
        if isinstance(value, list | tuple):
            raise refusal(name, value, "numbers of faces", "give them one by one: 1, 2, 3")
        whole(name, value, 1)


def box(name: str, value: Any) -> Box:
    """Left, top, right and bottom as finite numbers.

    Raises:
        SettingsError: it is not four finite numbers.
    """
    try:
        left, top, right, bottom = (float(one) for one in value)
    except (TypeError, ValueError):
        left = top = right = bottom = math.nan
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise refusal(name, value, "four numbers: left, top, right and bottom in pixels")
    return left, top, right, bottom


def no_embedding(name: str, value: object) -> None:
    """Check that a query is not an embedding, where its place in a photo is needed.

    Raises:
        SettingsError: it is an array of floats.
    """
    if getattr(getattr(value, "dtype", None), "kind", "f") == "f" and hasattr(value, "dtype"):
        raise refusal(name, value, "a photo or a Face", "search takes embeddings")


def detector(value: One) -> One:
    """A detector, its name or its settings, or None.

    Raises:
        SettingsError: it is something else.
    """
    is_settings = hasattr(value, "detect") or hasattr(value, "min_face_size")
    if value is None or isinstance(value, str) or is_settings:
        return value
    raise refusal(
        "detector",
        value,
        "a name, DetectorSettings, YunetSettings, or an object that implements Detector",
    )


def several_photos(name: str, value: Any) -> Iterable[Any]:
    """Several photos, and not one that happens to have parts.

    Raises:
        SettingsError: it is one photo, or nothing that can be iterated.
    """
    readable = hasattr(value, "read") or hasattr(value, "read_bytes")
    one = isinstance(value, str | bytes | bytearray | memoryview | os.PathLike | Photo | Face)
    # An array (height, width, 3) is one photo; (n, height, width, 3) has several.
    is_image = getattr(value, "ndim", 4) < 4 or hasattr(value, "getbands")
    if one or readable or is_image or not isinstance(value, Iterable):
        raise refusal(name, value, "several photos", "for one photo give a list: [photo]")
    return value
