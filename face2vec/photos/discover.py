"""Finds photos on disk in folders, files, patterns and lists, in a fixed order, each file once."""

# This module uses os.path, because strings are several times as fast as Path objects and a folder
# may hold a million files. Lists of suffixes are split from one string to keep them readable.
# ruff: noqa: PTH110, PTH112, PTH113, PTH114, PTH116, PTH118, PTH122, PTH123, SIM905

from __future__ import annotations

import fnmatch
import logging
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path

from face2vec.arguments import described, refusal
from face2vec.errors import SettingsError, StorageError
from face2vec.files import expanded, is_object, object_address
from face2vec.photos.allowed import check_allowed
from face2vec.photos.exclude import IGNORE_FILE, Rules, ignore_file_of
from face2vec.photos.extras import KINDS, RAW, kind_by_suffix
from face2vec.photos.formats import HEAD_BYTES, photo_format
from face2vec.photos.lists import lines_of, other_readings
from face2vec.photos.storage import Status, head_of, objects_in, status_of

log = logging.getLogger("face2vec")

Source = str | os.PathLike[str]

PAIRS = ("jpeg", "both")
"""What is taken of a camera raw file and the JPEG of the same exposure."""

PHOTO_SUFFIXES = frozenset(
    "jpg jpeg jpe jfif pjpeg mpo png apng webp avif avifs heic heics heif heifs hif "
    "tif tiff gif bmp dib".split()
)
"""Suffixes accepted without opening the file when a folder is searched."""

OTHER_SUFFIXES = frozenset(
    # documents, data and programs
    "txt md rst html htm xml json jsonl ndjson yaml yml toml csv tsv log pdf doc docx xls xlsx "
    "ppt pptx odt ods odp rtf py pyc ipynb js css sh bat exe dll so dylib ini cfg conf db lock "
    "sqlite sqlite3 sqlite-wal sqlite-shm sqlite-journal faiss npy npz h5 onnx pt pkl url lnk "
    "torrent part crdownload tmp bak "
    # side files of cameras, phones and photo programs
    "xmp aae thm pp3 dop cos lrcat lrdata photoslibrary ithmb "
    # audio
    "mp3 m4a wav flac aac ogg opus "
    # archives
    "zip rar 7z tar gz tgz bz2 xz zst iso dmg "
    # unsupported image formats: data of unknown cameras, and drawings
    "raw psd psb xcf ai eps ps svg svgz ico icns cur jp2 j2k jpx exr hdr tga pcx ppm pgm "
    "pbm".split()
)
"""Suffixes skipped without opening the file when a folder is searched."""


@dataclass(frozen=True, slots=True)
class FoundPhoto:
    """A file that is considered a photo or a video.

    Attributes:
        folder: absolute path, links resolved, or address of the folder in which the search
            started.
        name: path of the file relative to ``folder``.
        status: what a listing has said of an object; None for a file, and where it is not known.
    """

    # Strings, because creating Path objects for a million photos takes longer than the search.
    folder: str
    name: str
    status: Status | None = field(default=None, compare=False)

    @property
    def root(self) -> Path:
        """``folder`` as a path."""
        return Path(self.folder)

    @property
    def path(self) -> Path:
        """``name`` as a path."""
        return Path(self.name)

    @property
    def full(self) -> Path:
        """The absolute path of a file; see `place`."""
        return Path(self.folder, self.name)

    @property
    def place(self) -> str:
        """The absolute path of a file, or the address of an object."""
        if is_object(self.folder):
            return f"{self.folder}{os.sep}{self.name}"
        return os.path.join(self.folder, self.name)


def paths_of(sources: Source | Iterable[Source | Iterable[Source]]) -> list[str]:
    """Flatten a path, paths, or lists of paths to a list of strings, in order; ``~`` is expanded.

    Raises:
        SettingsError: an element is not a path.
    """
    if isinstance(sources, str | os.PathLike):
        path = os.fspath(sources)
        return [f"@{expanded(path[1:])}" if path.startswith("@") else expanded(path)]
    is_data = isinstance(sources, bytes | bytearray | memoryview) or hasattr(sources, "dtype")
    if is_data or not isinstance(sources, Iterable):
        raise SettingsError(
            f"photos are found by path (folder, file or pattern), not by {described(sources)}; an "
            "image in memory can be encoded and searched for; save it to a file to add it"
        )
    return [path for source in sources for path in paths_of(source)]


def find_photos(
    sources: Source | Iterable[Source | Iterable[Source]],
    *,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    left_out: Counter[str] | None = None,
    unread: Counter[str] | None = None,
    pairs: str = PAIRS[0],
    paired: Counter[str] | None = None,
) -> Iterator[FoundPhoto]:
    """Find the photos and videos in the sources, in a fixed order, each real file once.

    A source is one of

    - a folder, searched with all its subfolders in order of names. Names that begin with a dot
      are skipped, and what other programs keep beside photos, such as thumbnails, previews and
      deleted files (:data:`face2vec.photos.exclude.USUAL`). A file ``.face2vecignore`` in a folder
      has further patterns, as in ``.gitignore``. A file is accepted if its suffix is one of
      :data:`PHOTO_SUFFIXES`, skipped if it is one of :data:`OTHER_SUFFIXES`; camera raw files,
      JPEG XL photos and videos are accepted if their package is installed; and others are
      accepted if its first bytes are those of a photo or video. Links are followed. A link to a
      target inside the same folder is skipped, because the target is found under its own name. An
      unreadable subfolder is yielded as a photo, so that reading it reports the reason.
    - a file, always accepted; its root is its folder.
    - a glob pattern (``*``, ``?``, ``[…]``, ``**`` for any depth), if no path has exactly that
      name. Matches are treated like the contents of a folder. Their root is the last folder
      before the first wildcard. ``**`` does not follow links to folders.
    - ``@list.txt``: a text file with one file or folder per line, relative to the folder of the
      list. It is UTF-8 or UTF-16; its lines end with LF, CR or NUL (``find -print0``). A path may
      be in quotes or a ``file://`` URL. Blank lines and lines that begin with ``#`` are skipped.
      A listed file is always accepted, even if it is missing, unless all are. Its root is the
      folder of the list if that contains it.
    - ``-``: such a list on standard input, relative to the working directory.
    - the address of an object or of a folder of objects, ``s3://bucket/2024``, which fsspec reads.
      Objects are taken by the suffixes of their names alone, and are listed as they are asked for.
      Patterns of files ``.face2vecignore`` apply if they are in that folder, not below it. A line
      of a list can be an address; one that ends with ``/`` is a folder.

    Args:
        sources: the sources in the order of the search; one, several, or lists of them.
        exclude: patterns of files and folders to leave out, relative to each folder that is
            searched, as in ``.gitignore``.
        include: patterns of files and folders to take, although a pattern leaves them out.
        left_out: counts the files and folders that are left out, by pattern.
        unread: counts the files that no installed package reads, by their keys in
            :data:`face2vec.photos.extras.KINDS`.
        pairs: of a camera raw file with a JPEG beside it that has the same name, which are one
            exposure, ``"jpeg"`` takes the JPEG alone, and ``"both"`` both. Files that are named
            one by one, or by a pattern, are always taken.
        paired: counts the raw files that are not taken for that, by kind.

    Returns:
        An iterator over the photos and videos.

    Raises:
        SettingsError: a source is not a path, does not exist, cannot be listed, is a pattern
            without matches, or a list without an existing path. All sources are checked before
            this function returns.
        MissingExtraError: an address needs a package that is not installed.
        AddressNotAllowedError: the user has not allowed an address, see
            `face2vec.photos.allowed`.
        StorageError: later, a store does not list its objects.
    """
    if pairs not in PAIRS:
        raise refusal("pairs", pairs, " or ".join(map(repr, PAIRS)))
    patterns = _patterns("exclude", exclude), _patterns("include", include)
    rules = Rules.of(*patterns, left_out, unread, pairs == PAIRS[1], paired)
    return _distinct([_search(path, rules) for path in paths_of(sources)])


def _patterns(name: str, patterns: Sequence[str]) -> Sequence[str]:
    if isinstance(patterns, str) or not all(isinstance(one, str) for one in patterns):
        raise refusal(name, patterns, "a list of patterns")
    return patterns


_Found = tuple[str, str, str]  # root, path relative to it, real path


def _distinct(searches: Sequence[Iterator[_Found | FoundPhoto]]) -> Iterator[FoundPhoto]:
    seen: set[str] = set()
    for search in searches:
        for found in search:
            if isinstance(found, FoundPhoto):  # an object; one search finds each once
                real, photo = found.place if len(searches) > 1 else "", found
            else:
                root, relative, real = found
                photo = FoundPhoto(root, relative or os.curdir)
            if not real:
                yield photo
            elif real not in seen:
                seen.add(real)
                yield photo


def _search(source: str, rules: Rules) -> Iterator[_Found | FoundPhoto]:
    """Check one source and return an iterator over its photos."""
    if is_object(source):
        return _search_objects(source, rules)
    if source == "-":
        return _listed("on standard input", _standard_input(), Path.cwd(), rules)
    if source.startswith("@"):
        return _listed(repr(source), *_list_file(source), rules)
    if os.path.isdir(source):
        _check_listable(source)
        return _walk(os.path.realpath(source), rules)
    if os.path.exists(source):
        return iter([_single(source)])
    if _is_pattern(source):
        root, parts = _split_pattern(source)
        if next(_matching(root, parts, rules.uncounted()), None) is None:
            raise SettingsError(f"no file matches the pattern {source!r}")
        return _globbed(root, parts, rules)
    raise SettingsError(
        f"{source!r} does not exist (looked in {str(Path.cwd())!r}); give a folder, a file, "
        "a glob pattern, @LIST for a text file of paths, or - for paths on standard input"
    )


def _check_listable(folder: str) -> None:
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise SettingsError(f"cannot list the folder {folder!r}: {error.strerror}") from error


def _single(path: str) -> _Found:
    folder, name = os.path.split(path)
    root = os.path.realpath(folder)
    return root, name, os.path.realpath(path)


def _walk(root: str, rules: Rules, start: str = "") -> Iterator[_Found]:
    """Search a folder and its subfolders in sorted order.

    Args:
        root: absolute real path of the root.
        rules: what is left out.
        start: the folder to search, relative to ``root``.
    """
    top = os.path.realpath(os.path.join(root, start))
    first = _sorted_entries(top)
    if first is None:
        yield root, start, top
        return
    visited = {_identity(top)}
    # An explicit stack, because a tree may be deeper than Python's recursion limit.
    inside = _rules_in(rules, start, top, first)
    stack = [(iter(first), start, top, inside, _Exposures(first, start, inside))]
    while stack:
        entries, folder, real_folder, rules, exposures = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            continue
        name = entry.name
        relative = os.path.join(folder, name)
        if entry.is_symlink():
            real = os.path.realpath(entry.path)
            is_folder, is_file = os.path.isdir(real), os.path.isfile(real)
            if (is_folder or is_file) and _has_own_name(real, top, is_folder, rules):
                continue
            if not os.path.exists(real):  # a broken link with a photo's suffix is reported
                is_file = _suffix(name) in PHOTO_SUFFIXES
        else:
            real = os.path.join(real_folder, name)
            is_folder, is_file = entry.is_dir(), entry.is_file()
        if rules.leave_out(relative, is_folder):
            continue
        if is_folder:
            below = _sorted_entries(entry.path)
            if below is None:
                yield root, relative, real
                continue
            identity = _identity(entry.path)
            if identity not in visited:
                visited.add(identity)
                inner = _rules_in(rules, relative, entry.path, below)
                shown = _Exposures(below, relative, inner)
                stack.append((iter(below), relative, real, inner, shown))
        elif (
            is_file and not exposures.have_jpeg_of(name) and _may_be_photo(name, entry.path, rules)
        ):
            yield root, relative, real


class _Exposures:
    """The JPEG files of a folder, of which cameras write some beside a raw file.

    Args:
        entries: what is in the folder.
        folder: path of the folder, relative to that of the search.
        rules: what is left out.
    """

    def __init__(self, entries: Sequence[os.DirEntry[str]], folder: str, rules: Rules) -> None:
        self._entries, self._folder, self._rules = entries, folder, rules

    def have_jpeg_of(self, name: str) -> bool:
        """Whether a file is a camera raw file whose JPEG is taken in its place."""
        if self._rules.keeps_pairs or kind_by_suffix(_suffix(name)) != RAW:
            return False
        has_jpeg = os.path.splitext(name)[0].lower() in self._stems
        self._rules.paired[RAW] += has_jpeg
        return has_jpeg

    @cached_property
    def _stems(self) -> frozenset[str]:
        return frozenset(
            os.path.splitext(entry.name)[0].lower()
            for entry in self._entries
            if _suffix(entry.name) in ("jpg", "jpeg")
            and entry.is_file()
            and not self._rules.leave_out(
                os.path.join(self._folder, entry.name), False, count=False
            )
        )


def _rules_in(rules: Rules, folder: str, path: str, entries: Sequence[os.DirEntry[str]]) -> Rules:
    """The rules in a folder, with those of its own ignore file."""
    if any(entry.name == IGNORE_FILE for entry in entries):
        return rules.below(folder.replace(os.sep, "/"), ignore_file_of(path))
    return rules


def _identity(folder: str) -> tuple[int, int]:
    """Identify a folder, even if a mount shows it under a second name."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _sorted_entries(folder: str) -> list[os.DirEntry[str]] | None:
    """Entries of a folder sorted by name, or None if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return None


def _has_own_name(real: str, top: str, is_folder: bool, rules: Rules) -> bool:
    """Whether the walk of ``top`` finds a link's target under the target's own name."""
    if real != top and not real.startswith(os.path.join(top, "")):
        return False
    if rules.leave_out_below(os.path.relpath(real, top)) and real != top:
        return False
    return is_folder or _suffix(real) not in OTHER_SUFFIXES


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1][1:].lower()


def _may_be_photo(name: str, path: str, rules: Rules) -> bool:
    suffix = _suffix(name)
    if suffix in PHOTO_SUFFIXES:
        return True
    kind = kind_by_suffix(suffix)
    if kind is not None:
        return _is_read(kind, rules)
    if suffix in OTHER_SUFFIXES or not os.path.isfile(path):  # opening a pipe would block
        return False
    try:
        with open(path, "rb", buffering=0) as file:
            kind = photo_format(file.read(HEAD_BYTES))
    except OSError:
        return False
    return kind is not None and (kind not in KINDS or _is_read(kind, rules))


def _is_read(kind: str, rules: Rules) -> bool:
    """Whether files of a kind can be read; those that cannot are counted."""
    is_read = KINDS[kind].is_read
    rules.unread[kind] += not is_read
    return is_read


_WILDCARD = re.compile(r"[*?[]")


def _is_pattern(source: str) -> bool:
    return _WILDCARD.search(source) is not None


def _split_pattern(pattern: str) -> tuple[str, tuple[str, ...]]:
    """Split a pattern into the real folder before its first wildcard, and the remaining parts."""
    parts = Path(pattern).parts
    folder = ""
    for n, part in enumerate(parts):
        below = os.path.join(folder, part)
        if _is_pattern(part) and not os.path.lexists(below):
            return os.path.realpath(folder), parts[n:]
        folder = below
    return os.path.realpath(folder), ()


def _matching(root: str, parts: tuple[str, ...], rules: Rules, folder: str = "") -> Iterator[str]:
    """Paths relative to ``root`` that match the parts of a pattern, in sorted order.

    The rules apply to names that a wildcard matches, and not to names that the pattern spells.
    """
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    path = os.path.join(root, folder)
    if part == "**":
        yield from _matching(root, rest, rules, folder)
        for entry in _sorted_entries(path) or ():
            below = os.path.join(folder, entry.name)
            if entry.is_dir(follow_symlinks=False) and not rules.leave_out(below, True):
                yield from _matching(root, parts, rules, below)
    elif os.path.lexists(os.path.join(path, part)):  # may be a literal name with a wildcard
        yield from _matching(root, rest, rules, os.path.join(folder, part))
    elif _is_pattern(part):
        names = [entry.name for entry in _sorted_entries(path) or ()]
        for name in fnmatch.filter(names, part):
            below = os.path.join(folder, name)
            is_folder = os.path.isdir(os.path.join(root, below))
            if part.startswith(".") or not rules.leave_out(below, is_folder):
                yield from _matching(root, rest, rules, below)


def _globbed(root: str, parts: tuple[str, ...], rules: Rules) -> Iterator[_Found]:
    real_folder = lru_cache(os.path.realpath)
    for relative in _matching(root, parts, rules):
        path = os.path.join(root, relative)
        if os.path.isdir(path):
            yield from _walk(root, rules, relative)
        elif _may_be_photo(relative, path, rules):
            folder, name = os.path.split(path)
            yield root, relative, _real_path(real_folder(folder), name)


def _real_path(real_folder: str, name: str) -> str:
    """Resolve one name in a folder whose path is already resolved."""
    path = os.path.join(real_folder, name)
    return os.path.realpath(path) if os.path.islink(path) else path


def _list_file(source: str) -> tuple[list[str], Path]:
    path = Path(source[1:])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read the list {source!r}: {error.strerror}") from error
    kind = photo_format(content[:HEAD_BYTES])
    if kind is not None:
        raise SettingsError(
            f"the list {source!r} is a photo ({kind}) and not a text file; give it without the @"
        )
    return lines_of(content), path.parent


def _standard_input() -> list[str]:
    buffer = getattr(sys.stdin, "buffer", None)
    content = sys.stdin.read() if buffer is None else buffer.read()
    if isinstance(content, str):
        content = content.encode("utf-8", errors="surrogateescape")
    return lines_of(content)


def _listed(name: str, lines: list[str], base: Path, rules: Rules) -> Iterator[_Found | FoundPhoto]:
    """Check that a list names something that exists and return an iterator over its photos."""
    top = os.path.realpath(base)
    for line in lines:
        if is_object(line):
            check_allowed(line)  # one with a password is refused before it can be shown
    if lines and not any(is_object(line) or _on_disk(top, line)[1] for line in lines):
        first = lines[0] if len(lines[0]) <= _SHOWN else f"{lines[0][:_SHOWN]}…"
        raise SettingsError(
            f"the list {name} names no file or folder that exists; its first line is {first!r}, "
            f"looked for in {top!r}; a list has one path on each line"
        )
    return _of_lines(top, lines, rules)


_SHOWN = 100  # characters of a line in a message


def _on_disk(top: str, line: str) -> tuple[str, int]:
    """The path that a line of a list means, and its mode; 0 if it does not exist."""
    path, mode = os.path.join(top, line), _mode_of(os.path.join(top, line))
    if mode:
        return path, mode
    readings = [os.path.join(top, reading) for reading in other_readings(line)]
    found = ((reading, _mode_of(reading)) for reading in readings)
    return next((one for one in found if one[1]), (readings[0], 0))


def _mode_of(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except (OSError, ValueError):
        return 0  # reading the file reports the error


def _of_lines(top: str, lines: list[str], rules: Rules) -> Iterator[_Found | FoundPhoto]:
    below_top = os.path.join(top, "")

    @lru_cache
    def root_and_rest(folder: str) -> tuple[str, str, str]:
        real = os.path.realpath(folder)
        if real != top and not real.startswith(below_top):
            return real, real, ""
        return real, top, real[len(below_top) :]

    for line in lines:
        if is_object(line):
            yield from _of_address(line, rules)
            continue
        path, mode = _on_disk(top, line)  # one call of lstat, most of the cost of a listed photo
        link = stat.S_ISLNK(mode)
        if stat.S_ISDIR(mode) or (link and os.path.isdir(path)):
            yield from _walk(os.path.realpath(path), rules)
        else:
            folder, name = os.path.split(path)
            real_folder, root, rest = root_and_rest(folder)
            real = os.path.join(real_folder, name)
            yield root, os.path.join(rest, name), os.path.realpath(real) if link else real


# --- objects ----------------------------------------------------------------------------------


def _search_objects(address: str, rules: Rules) -> Iterator[FoundPhoto]:
    """Check the address of an object or folder and return an iterator over its photos."""
    with _storage_errors(address):
        try:
            status = status_of(address) if "/" in address.partition("://")[2] else None
        except (FileNotFoundError, IsADirectoryError):
            status = None
        if status is not None:
            return iter([_one_object(address, status)])
        listing = objects_in(address)
        first = next(listing, None)
    if first is None:
        raise SettingsError(
            f"there is no object and no folder {address!r}; give the address of one, such as "
            "s3://BUCKET/FOLDER, without a pattern; a pattern can be given with --exclude"
        )
    return _walk_objects(address, chain([first], listing), rules)


def _of_address(line: str, rules: Rules) -> Iterator[FoundPhoto]:
    address = object_address(line)
    if not line.endswith("/"):
        yield _one_object(address)
        return
    yield from _walk_objects(address, objects_in(address), rules)


def _one_object(address: str, status: Status | None = None) -> FoundPhoto:
    folder, _, name = address.rpartition("/")
    if folder.endswith(":/"):
        raise SettingsError(f"{address!r} names a bucket, not an object; give BUCKET/NAME")
    return FoundPhoto(folder, name, status)


def _walk_objects(
    root: str, listing: Iterator[tuple[str, Status]], rules: Rules
) -> Iterator[FoundPhoto]:
    """Choose among the objects of a folder, as `_walk` does among files.

    Args:
        root: address of the folder.
        listing: name and status of its objects, in order of names.
        rules: what is left out.
    """
    rules = _rules_of_objects(root, rules)
    left_out = _LeftOut(rules)
    waiting: list[tuple[str, Status]] = []  # raw files that a JPEG may follow
    with _storage_errors(root):
        for name, status in listing:
            while waiting and not name.startswith(_stem(waiting[0][0])):
                yield from _unpaired(root, *waiting.pop(0), rules)
            if name.endswith(os.sep + IGNORE_FILE):
                log.warning(
                    "%s/%s is not used: of objects, only the %s of the folder that is given is; "
                    "give its patterns with --exclude",
                    *(root, name, IGNORE_FILE),
                )
            if left_out.has(name):
                continue
            suffix = _suffix(name)
            kind = kind_by_suffix(suffix)
            if kind == RAW and not rules.keeps_pairs:
                waiting.append((name, status))
                continue
            if suffix in ("jpg", "jpeg"):
                kept = [one for one in waiting if _stem(one[0]) != _stem(name)]
                rules.paired[RAW] += len(waiting) - len(kept)
                waiting = kept
            if suffix in PHOTO_SUFFIXES or (kind is not None and _is_read(kind, rules)):
                yield FoundPhoto(root, name, status)
        for one in waiting:
            yield from _unpaired(root, *one, rules)


def _unpaired(root: str, name: str, status: Status, rules: Rules) -> Iterator[FoundPhoto]:
    """A camera raw file without a JPEG, if it can be read."""
    if _is_read(RAW, rules):
        yield FoundPhoto(root, name, status)


def _stem(name: str) -> str:
    """A name up to and with the dot before its suffix."""
    return name[: name.rfind(".") + 1]


class _LeftOut:
    """Which objects of a folder are left out; each folder is looked at, and counted, once.

    Args:
        rules: what is left out.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._folders: list[tuple[str, bool]] = []  # those that the last object was in

    def has(self, name: str) -> bool:
        """Whether an object, or one of the folders that it is in, is left out.

        Args:
            name: relative to the folder of the search; names are asked for in order.
        """
        while self._folders and not name.startswith(self._folders[-1][0]):
            self._folders.pop()
        if self._folders and self._folders[-1][1]:
            return True
        known = self._folders[-1][0] if self._folders else ""
        for end in range(len(known), len(name)):
            if name[end] == os.sep:
                is_left_out = end > 0 and self._rules.leave_out(name[:end], True)
                self._folders.append((name[: end + 1], is_left_out))
                if is_left_out:
                    return True
        return self._rules.leave_out(name, False)


def _rules_of_objects(root: str, rules: Rules) -> Rules:
    """The rules in a folder of objects, with those of its own ignore file."""
    address = f"{root}/{IGNORE_FILE}"
    with _storage_errors(address):
        try:
            status_of(address)
            return rules.below("", head_of(address, _MOST_IGNORED))
        except FileNotFoundError:
            return rules


_MOST_IGNORED = 1 << 20  # bytes of an ignore file


@contextmanager
def _storage_errors(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{address} cannot be listed ({error}); look at the address, at your credentials for "
            "it and at the connection, and run the same command again; what was read is kept"
        ) from error
