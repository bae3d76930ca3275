"""Photos in object storage, such as ``s3://bucket/2024/a.jpg``, read with fsspec.

An object has no path, but an address. Everything else about a photo is the same: it is found in a
folder, has a size and a time of change, and is read as a whole. What reads photos asks
`face2vec.photos.storage`, and only that module asks this one.

Credentials come from where the programs of a store take them; face2vec takes and stores none. Only
addresses that the user has allowed are requested (`face2vec.photos.allowed`).
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar, cast

from face2vec.errors import Face2VecError, MissingExtraError, SettingsError
from face2vec.files import ON_WINDOWS, object_address
from face2vec.photos.allowed import check_allowed

ATTEMPTS = 3
"""How often a request is made that breaks off; s3fs itself repeats what may pass."""
WAIT_SECONDS = 0.5
"""Before the second attempt; doubled before each further one."""
PAGE = 1000
"""Objects of S3 that are listed by a request, which is the most that it gives."""
BLOCK_BYTES = 4 << 20
"""What is asked for at once of an object that is read in parts, such as a video."""
_TIMES = "LastModified", "last_modified", "mtime", "modified", "updated", "created"
_TAGS = "ETag", "etag", "e_tag", "md5Hash", "content_md5", "checksum", "generation", "ino"
_FINAL = FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError
_SECOND = 1_000_000_000

Result = TypeVar("Result")


class ObjectStatus(NamedTuple):
    """What a store says of an object without sending it.

    Attributes:
        size: in bytes.
        mtime_ns: time of its last change in nanoseconds, in whole seconds; 0 if it has none.
        ctime_ns: 64 bits of the SHA-256 of its ETag, which is another for other bytes; 0 if it has
            none. Galleries keep it where they keep the status change time of a file.
    """

    size: int
    mtime_ns: int
    ctime_ns: int


class ObjectFile(io.BufferedReader):
    """An open object.

    Attributes:
        address: its address.
        status: its status when it was opened.
    """

    def __init__(self, address: str, raw: io.RawIOBase, status: ObjectStatus) -> None:
        super().__init__(raw, BLOCK_BYTES)
        self.address, self.status = address, status


def object_status(address: str) -> ObjectStatus:
    """The status of an object, by one request.

    Raises:
        IsADirectoryError: it is a folder of objects.
        OSError: there is no such object, or the store does not give it.
        MissingExtraError: fsspec or s3fs is not installed.
        SettingsError: no installed package reads addresses of this kind.
    """
    info = _attempted(address, lambda store, path: store.info(path))
    if info.get("type") == "directory":
        raise IsADirectoryError(f"{address} is a folder")
    return _status_of(info)


def object_head(address: str, count: int) -> bytes:
    """The first bytes of an object, by one request.

    Raises:
        OSError: there is no such object, or it cannot be read.
    """
    return _attempted(address, lambda store, path: bytes(store.cat_file(path, start=0, end=count)))


def open_object(address: str) -> ObjectFile:
    """An object, open for reading, in parts or by one request as a whole.

    Raises:
        OSError: there is no such object, or it cannot be opened.
    """
    status = object_status(address)
    return ObjectFile(address, _Parts(address, status.size), status)


def find_objects(address: str) -> Iterator[tuple[str, ObjectStatus]]:
    """(name, status) of all objects in a folder and below, in order of the bytes of their names.

    They are listed as they are asked for: in S3 a thousand at a time, in other stores a folder at
    a time.

    Args:
        address: of the folder; names are relative to it.

    Raises:
        OSError: the store does not list them.
    """
    with _own_errors(address):
        store, path = _store_of(address)
    listed = _keys_of_s3 if hasattr(store, "call_s3") else _names_in
    return listed(address, path)


def _keys_of_s3(address: str, path: str) -> Iterator[tuple[str, ObjectStatus]]:
    bucket, _, folder = path.partition("/")
    before = f"{folder}/" if folder else ""
    asked: dict[str, Any] = {"Bucket": bucket, "Prefix": before, "MaxKeys": PAGE}

    def page_after(store: Any, _: str) -> dict[str, Any]:
        return cast("dict[str, Any]", store.call_s3("list_objects_v2", **asked))

    while True:
        page = _attempted(address, page_after)
        for entry in page.get("Contents", ()):
            key = entry["Key"]
            if not key.endswith("/"):  # the mark of an empty folder
                yield _name(key[len(before) :]), _status_of({**entry, "size": entry["Size"]})
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def _names_in(address: str, path: str, above: str = "") -> Iterator[tuple[str, ObjectStatus]]:
    try:
        entries = _attempted(address, lambda store, _: store.ls(path, detail=True))
    except FileNotFoundError:
        return
    found = []
    for entry in entries:
        name = str(entry["name"]).rstrip("/").rpartition("/")[2]
        is_folder = entry.get("type") == "directory"
        found.append((f"{name}/" if is_folder else name, entry))
    for name, entry in sorted(found, key=lambda one: one[0].encode("utf-8", "surrogatepass")):
        if name.endswith("/"):
            yield from _names_in(address, str(entry["name"]), above + name)
        elif name:
            yield _name(above + name), _status_of(entry)


class _Parts(io.RawIOBase):
    """Reads parts of an object; a part whose connection breaks is asked for again."""

    def __init__(self, address: str, size: int) -> None:
        self._address, self._size, self._at = address, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        data = self._part(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._part(self._size)

    def _part(self, count: int) -> bytes:
        start, end = self._at, min(self._at + count, self._size)
        if end <= start:
            return b""

        def part(store: Any, path: str) -> bytes:
            data = bytes(store.cat_file(path, start=start, end=end))
            if len(data) != end - start:
                raise OSError(f"it breaks off after {start + len(data):,} of {self._size:,} bytes")
            return data

        data = _attempted(self._address, part)
        self._at = end
        return data


def _attempted(address: str, act: Callable[[Any, str], Result]) -> Result:
    """The result of a request, which is repeated if the connection breaks."""
    for attempt in range(ATTEMPTS):
        try:
            with _own_errors(address):
                return act(*_store_of(address))
        except _FINAL:
            raise
        except OSError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(WAIT_SECONDS * 2**attempt)
    raise AssertionError


def _store_of(address: str) -> tuple[Any, str]:
    """Fsspec's file system of an address, and the path in it; every request comes through here.

    Raises:
        AddressNotAllowedError: the user has not allowed to read from there.
    """
    check_allowed(address)
    scheme = address.partition("://")[0]
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtraError(f"reading {scheme}://", "fsspec", "s3") from error
    url = object_address(address)
    if ON_WINDOWS:  # galleries store paths with the separator of the system
        url = url.replace(os.sep, "/")
    try:
        store, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        if scheme in ("s3", "s3a"):
            raise MissingExtraError(f"reading {scheme}://", "s3fs", "s3") from error
        raise SettingsError(f"reading {scheme}:// needs another package: {error}") from error
    except ValueError as error:
        raise SettingsError(
            f"{scheme}:// is no kind of address that fsspec reads ({error}); give a path, or an "
            "address such as s3://BUCKET/FOLDER"
        ) from error
    return store, cast("str", path)


@contextmanager
def _own_errors(address: str) -> Iterator[None]:
    """Turn whatever the packages of a store raise into an `OSError`."""
    try:
        yield
    except (OSError, ImportError, Face2VecError, MemoryError) as error:
        if isinstance(error, FileNotFoundError) and not str(error):
            raise FileNotFoundError(address) from error
        raise
    except Exception as error:
        raise OSError(" ".join(str(error).split())[:300] or type(error).__name__) from error


def _status_of(info: dict[str, Any]) -> ObjectStatus:
    changed = next((info[name] for name in _TIMES if info.get(name)), None)
    tag = next((str(info[name]).strip('"') for name in _TAGS if info.get(name)), "")
    mark = int.from_bytes(hashlib.sha256(tag.encode()).digest()[:8], "big", signed=True)
    return ObjectStatus(int(info.get("size") or 0), _seconds(changed) * _SECOND, mark if tag else 0)


def _seconds(changed: object) -> int:
    """A time of change in whole seconds since 1970; a listing and an object may round it."""
    if isinstance(changed, str):
        try:
            changed = datetime.fromisoformat(changed)
        except ValueError:
            return 0
    if isinstance(changed, datetime):
        changed = (changed if changed.tzinfo else changed.replace(tzinfo=UTC)).timestamp()
    return int(changed) if isinstance(changed, int | float) else 0


def _name(name: str) -> str:
    return name.replace("/", os.sep) if ON_WINDOWS else name
