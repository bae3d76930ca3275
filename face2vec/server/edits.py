"""What edits are called on the pages, in the language of the reader.

A gallery stores the description of an edit in English, as the command line shows it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from face2vec.report.text import printable

Text = Callable[..., str]
"""The text of a language for a key, with values for its places."""

_NAME = r"""(?P<name>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_PATTERNS = tuple(
    (key, re.compile(pattern, re.DOTALL))
    for key, pattern in (
        ("unname", rf"removal of the name {_NAME} from (?P<who>person \d+)"),
        ("name", rf"name {_NAME} of (?P<who>person \d+)"),
        ("merge", r"merge of (?P<others>.+) into (?P<who>.+)"),
        ("split", r"split of (?P<faces>face \d+|\d+ faces) from (?P<who>.+)"),
        ("assign", r"assignment of (?P<faces>face \d+|\d+ faces) to (?P<who>.+)"),
        ("enrol_many", r"enrolment of (?P<faces>face \d+|\d+ faces) as (?P<count>\d+) people"),
        ("enrol", rf"enrolment of (?P<faces>face \d+|\d+ faces) as {_NAME}"),
        ("unmark", r"removal of mark (?P<mark>\d+)"),
        ("remove", r"removal of (?P<faces>face \d+|\d+ faces) from (?P<who>.+)"),
        ("apart", r"statement that (?P<one>.+) and (?P<other>.+) are different people"),
        ("name_mark", rf"statement that mark (?P<mark>\d+) is {_NAME}"),
        ("unname_mark", r"statement that mark (?P<mark>\d+) is nobody"),
        ("hide_many", r"hiding of (?P<count>\d+) people"),
        ("show_many", r"showing of (?P<count>\d+) people"),
        ("hide", r"hiding of (?P<who>.+)"),
        ("show", r"showing of (?P<who>.+)"),
        ("cover", r"choice of (?P<faces>face \d+) as the cover of (?P<who>.+)"),
        ("ignore", r"ignoring of (?P<faces>face \d+|\d+ faces)"),
        ("mark_face", r"marking of (?P<faces>face \d+) by hand"),
        ("mark", r"marking of a face by hand \(mark (?P<mark>\d+)\)"),
    )
)
_LOST = re.compile(r"(.*); to have (.+) back, remove the photo and index it again", re.DOTALL)
_NAMED = re.compile(r"(.*) \(person (\d+)\)", re.DOTALL)


def described(what: str, text: Text) -> str:
    """What an edit did, in the language of a text function.

    Args:
        what: the description that the gallery has.
        text: see `Text`.
    """
    lost = _LOST.fullmatch(what)
    if lost:
        return text("edit.lost", what=described(lost[1], text), faces=_faces(lost[2], text))
    for key, pattern in _PATTERNS:
        found = pattern.fullmatch(what)
        if found:
            parts = found.groupdict()
            return printable(text(f"edit.{key}", **{n: _part(n, parts[n], text) for n in parts}))
    return printable(what)


def _part(name: str, words: str, text: Text) -> str:
    if name == "name":
        try:
            return str(ast.literal_eval(words))
        except (ValueError, SyntaxError):
            return words
    if name == "faces":
        return _faces(words, text)
    if name == "others":
        return ", ".join(_who(one, text) for one in words.split(", "))
    return _who(words, text) if name in ("who", "one", "other") else words


def _faces(words: str, text: Text) -> str:
    if words.startswith("face "):
        return text("edit.face", number=words[5:])
    return text("edit.faces", count=words.removesuffix(" faces"))


def _who(words: str, text: Text) -> str:
    """A person as an edit calls them: by number, by name and number, or a single face."""
    number = words.removeprefix("person ").removesuffix(" (unnamed)")
    if words.startswith("person ") and number.isdecimal():
        return text("people.number", id=number)
    if words.startswith("face ") and words[5:].isdecimal():
        return _faces(words, text)
    named = _NAMED.fullmatch(words)
    return named[1] if named else words
