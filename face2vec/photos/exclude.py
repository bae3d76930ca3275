"""What is left out when a folder is searched: patterns as in ``.gitignore``.

Other programs keep thumbnails, previews and deleted photos beside the photos. They would be faces
of the gallery, mostly copies of poor quality.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from face2vec.photos.lists import lines_of

log = logging.getLogger("face2vec")

IGNORE_FILE = ".face2vecignore"

HIDDEN = ".*"
"""Names that begin with a dot, which are left out without being counted."""

USUAL = (
    # Network storage (Synology, QNAP, NetApp): thumbnails, deleted files, snapshots.
    *("@eaDir/", "#recycle/", "#snapshot/", "@Recycle/", "@Recently-Snapshot/", "@tmp/"),
    *("@sharebin/", "~snapshot/", "files_trashbin/"),
    # Windows and macOS: deleted files, resource forks in archives.
    *("$RECYCLE.BIN/", "RECYCLER/", "RECYCLED/", "System Volume Information/", "__MACOSX/"),
    *("lost+found/", "FOUND.[0-9][0-9][0-9]/"),
    # Lightroom and Capture One: previews.
    *("*.lrdata/", "*.lrcat-data/", "CaptureOne/Cache/"),
    # exiftool: photos as they were before it wrote into them.
    "*.*_original",
    # Libraries of Apple: all but the original photos.
    *("*.photoslibrary/*", "*.photolibrary/*", "*.migratedphotolibrary/*", "*.aplibrary/*"),
    *("!*library/originals/", "!*library/Masters/"),
)
"""Patterns that apply in every folder, whatever the case of letters."""


@dataclass(frozen=True)
class _Rule:
    """One pattern, relative to a folder."""

    text: str
    expression: str
    folders_only: bool
    takes: bool  # what it matches, in spite of earlier patterns

    @cached_property
    def matches(self) -> re.Pattern[str]:
        return re.compile(self.expression, re.DOTALL)


class Rules:
    """Patterns in order; the last that matches decides.

    Args:
        rules: the patterns.
        wanted: patterns whose matches are taken, whatever the others say.
        left_out: counts what is left out, by pattern.
        unread: counts files that cannot be read, by kind.
        keeps_pairs: whether a camera raw file is taken although its JPEG is beside it.
        paired: counts such files that are not taken, by kind.
    """

    def __init__(
        self,
        rules: tuple[_Rule, ...],
        wanted: tuple[_Rule, ...],
        left_out: Counter[str],
        unread: Counter[str],
        keeps_pairs: bool = False,
        paired: Counter[str] | None = None,
    ) -> None:
        self._rules, self._wanted, self._left_out = rules, wanted, left_out
        self.unread, self.keeps_pairs = unread, keeps_pairs
        self.paired = Counter[str]() if paired is None else paired

    @classmethod
    def of(
        cls,
        exclude: Iterable[str] = (),
        include: Iterable[str] = (),
        left_out: Counter[str] | None = None,
        unread: Counter[str] | None = None,
        keeps_pairs: bool = False,
        paired: Counter[str] | None = None,
    ) -> Rules:
        """The usual patterns, and those of a user.

        Args:
            exclude: patterns of what is left out, see `Rules.below` for their form.
            include: patterns of what is taken, although others leave it out.
            left_out: counts what is left out, by pattern.
            unread: counts files that cannot be read, by kind.
            keeps_pairs: see `Rules`.
            paired: see `Rules`.
        """
        usual = [rule for text in (HIDDEN, *USUAL) for rule in _rules(text, "", any_case=True)]
        own = [rule for text in exclude for rule in _rules(text, "")]
        wanted = [rule for text in include for rule in _rules(text, "")]
        counts = [Counter[str]() if one is None else one for one in (left_out, unread)]
        rules = (*usual, *own)
        return cls(rules, tuple(wanted), counts[0], counts[1], keeps_pairs, paired)

    def below(self, folder: str, content: bytes) -> Rules:
        r"""These patterns, and those of an ignore file for its folder.

        A line is a pattern as in ``.gitignore``: ``*``, ``?`` and ``[…]`` match within a name, and
        ``**`` any number of folders; with a ``/`` before its end it is relative to the folder of
        the file, otherwise it matches at any depth; a ``/`` at its end means folders only; ``!``
        takes what earlier lines left out; ``#`` begins a comment, and ``\`` makes the next
        character ordinary.

        Args:
            folder: path of the folder, relative to that of the search, with ``/``.
            content: the lines of the file.
        """
        more = tuple(rule for line in lines_of(content) for rule in _rules(line, folder))
        rules = (*self._rules, *more)
        return Rules(
            rules, self._wanted, self._left_out, self.unread, self.keeps_pairs, self.paired
        )

    def uncounted(self) -> Rules:
        """These patterns with a count of their own."""
        return Rules(self._rules, self._wanted, Counter(), Counter(), self.keeps_pairs)

    def leave_out(self, path: str, is_folder: bool, *, count: bool = True) -> bool:
        """Whether a file or folder is left out.

        Args:
            path: its path relative to the folder of the search.
            is_folder: whether it is a folder.
            count: whether to count it as left out.
        """
        path = path.replace(os.sep, "/")
        if not (self._for_folders if is_folder else self._for_files).fullmatch(path):
            return False  # by one expression, because this is asked for each file
        rule = _last(self._rules, path, is_folder)
        if rule is None or rule.takes or _last(self._wanted, path, is_folder) is not None:
            return False
        if count and rule.text != HIDDEN:
            self._left_out[rule.text] += 1
        return True

    def leave_out_below(self, path: str) -> bool:
        """Whether a file, or one of the folders that it is in, is left out."""
        whole = Path(path)
        folders = [str(parent) for parent in whole.parents if parent.name]
        return self.leave_out(path, False, count=False) or any(
            self.leave_out(folder, True, count=False) for folder in folders
        )

    @cached_property
    def _for_folders(self) -> re.Pattern[str]:
        return _any(rule for rule in self._rules if not rule.takes)

    @cached_property
    def _for_files(self) -> re.Pattern[str]:
        return _any(r for r in self._rules if not r.takes and not r.folders_only)


def ignore_file_of(folder: str) -> bytes:
    """The content of a folder's ignore file; empty if it cannot be read, which is logged."""
    path = os.path.join(folder, IGNORE_FILE)  # noqa: PTH118
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError as error:
        log.warning("cannot read %s: %s", path, error.strerror)
        return b""


def _last(rules: tuple[_Rule, ...], path: str, is_folder: bool) -> _Rule | None:
    for rule in reversed(rules):
        if (is_folder or not rule.folders_only) and rule.matches.fullmatch(path):
            return rule
    return None


def _any(rules: Iterable[_Rule]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{rule.expression})" for rule in rules), re.DOTALL)


def _rules(line: str, folder: str, *, any_case: bool = False) -> list[_Rule]:
    """The rule of one line; none for a line without a pattern."""
    text = line.rstrip(" \t") if not line.rstrip(" \t").endswith("\\") else line
    takes = text.startswith("!")
    pattern = text[1:] if takes else text
    folders_only = pattern.endswith("/")
    pattern = pattern.rstrip("/")
    if not pattern:
        return []
    is_anchored = "/" in pattern
    expression = _expression(pattern.removeprefix("/"))
    if not is_anchored or any_case:
        expression = f"(?:.*/)?{expression}"
    if folder:
        expression = f"{re.escape(folder)}/{expression}"
    if any_case:
        expression = f"(?i:{expression})"
    return [_Rule(text, expression, folders_only, takes)]


_TOKEN = re.compile(r"/\*\*/|^\*\*/|/\*\*$|\\.|\[!?\]?[^\]]*\]|[*?]|.", re.DOTALL)


def _expression(pattern: str) -> str:
    """A pattern as a regular expression for a whole path."""
    found = []
    for token in _TOKEN.findall(pattern):
        if token == "/**/":
            found.append("/(?:.*/)?")
        elif token == "**/":
            found.append("(?:.*/)?")
        elif token == "/**":
            found.append("/.*")
        elif token == "*":
            found.append("[^/]*")
        elif token == "?":
            found.append("[^/]")
        elif len(token) > 2 and token.startswith("["):
            inside = token[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            found.append(f"(?!/)[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]")
        else:
            found.append(re.escape(token.removeprefix("\\") if len(token) == 2 else token))
    return "".join(found)
