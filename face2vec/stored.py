"""Values from files of unknown origin, each checked to have the type and range that it must have.

A gallery may come from somebody else, and SQLite stores any type in any column. Every function
returns its value, or raises `StoredValueError`, which those who know the file turn into its error.
"""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

Kind = TypeVar("Kind")
LARGEST = 2**63 - 1


class StoredValueError(ValueError):
    """A stored value has the wrong type, or is out of range."""


def parsed(value: object, what: str) -> Any:
    """The value of a JSON text.

    Args:
        value: the text, as it was stored.
        what: what it is, for messages.

    Raises:
        StoredValueError: it is not text, or not JSON.
    """
    try:
        return json.loads(text(value, what))
    except (ValueError, RecursionError) as error:
        raise StoredValueError(f"{what} is not JSON ({error})") from error


def text(value: object, what: str) -> str:
    """A text.

    Args:
        value: what was stored.
        what: what it is, for messages.

    Raises:
        StoredValueError: it is not text.
    """
    return _of_type(value, str, "text", what)


def text_or_none(value: object, what: str) -> str | None:
    """A text, or None; see `text`.

    Raises:
        StoredValueError: it is neither.
    """
    return None if value is None else text(value, what)


def blob(value: object, what: str) -> bytes:
    """Bytes.

    Args:
        value: what was stored.
        what: what it is, for messages.

    Raises:
        StoredValueError: it is not bytes.
    """
    return _of_type(value, bytes, "bytes", what)


def integer(value: object, what: str, least: int = 0, most: int = LARGEST) -> int:
    """An integer.

    Args:
        value: what was stored.
        what: what it is, for messages.
        least: the least allowed.
        most: the most allowed.

    Raises:
        StoredValueError: it is no integer, or out of range.
    """
    if type(value) is not int:
        raise StoredValueError(f"{what} is {_kind(value)}, not an integer")
    if not least <= value <= most:
        raise StoredValueError(f"{what} is {value}; it must be from {least} to {most}")
    return value


def number(value: object, what: str, least: float = -math.inf) -> float:
    """A finite number.

    Args:
        value: what was stored.
        what: what it is, for messages.
        least: the least allowed.

    Raises:
        StoredValueError: it is no number, not finite, or out of range.
    """
    if type(value) not in (int, float):
        raise StoredValueError(f"{what} is {_kind(value)}, not a finite number")
    try:
        found = float(value)  # type: ignore[arg-type]
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise StoredValueError(f"{what} is not a finite number")
    if found < least:
        raise StoredValueError(f"{what} is {found}; it must be at least {least}")
    return found


def mapping(value: object, what: str) -> dict[str, Any]:
    """A JSON object.

    Args:
        value: what was stored.
        what: what it is, for messages.

    Raises:
        StoredValueError: it is something else.
    """
    return _of_type(value, dict, "a JSON object", what)


def array(value: object, what: str, length: int | None = None) -> list[Any]:
    """A JSON array.

    Args:
        value: what was stored.
        what: what it is, for messages.
        length: its length; None for any.

    Raises:
        StoredValueError: it is something else, or has another length.
    """
    values = _of_type(value, list, "a JSON array", what)
    if length not in (None, len(values)):
        raise StoredValueError(f"{what} has {len(values)} values, not {length}")
    return values


def field(values: dict[str, Any], name: str, what: str) -> Any:
    """One value of a JSON object.

    Args:
        values: the object.
        name: name of the value.
        what: what the object is, for messages.

    Raises:
        StoredValueError: it is missing.
    """
    if name not in values:
        raise StoredValueError(f"{what} has no {name!r}")
    return values[name]


def _of_type(value: object, kind: type[Kind], wanted: str, what: str) -> Kind:
    if not isinstance(value, kind):
        raise StoredValueError(f"{what} is {_kind(value)}, not {wanted}")
    return value


def _kind(value: object) -> str:
    return "NULL" if value is None else type(value).__name__
