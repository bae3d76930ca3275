"""Which addresses of objects are read on this machine: those below a root that its user allowed.

A gallery, a list and a table name addresses, and may come from somebody else. Without this they
would choose what is requested with the user's credentials. What the user allowed is in the user's
config folder, and never in a gallery.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from face2vec.errors import AddressNotAllowedError, NotWrittenError, SettingsError
from face2vec.files import ON_WINDOWS, expanded, is_object, object_address

ALLOW_VARIABLE = "FACE2VEC_ALLOW"
"""Further allowed addresses, separated by commas."""
CONFIG_VARIABLE = "FACE2VEC_CONFIG"

log = logging.getLogger("face2vec")


def allowed_file() -> Path:
    """The file of allowed addresses, one a line, in ``$FACE2VEC_CONFIG`` or the user's folder."""
    if chosen := os.environ.get(CONFIG_VARIABLE):
        return Path(expanded(chosen)).absolute() / "allowed.txt"
    from platformdirs import user_config_path

    return user_config_path("face2vec") / "allowed.txt"


def allowed() -> tuple[str, ...]:
    """The allowed addresses: those of the file, then those of ``$FACE2VEC_ALLOW``."""
    file = allowed_file()
    try:
        status = file.stat()
        kept = _lines(file, status.st_mtime_ns, status.st_size)
    except OSError:
        kept = ()
    given = (one.strip() for one in os.environ.get(ALLOW_VARIABLE, "").split(","))
    return tuple(dict.fromkeys((*kept, *(object_address(one) for one in given if is_object(one)))))


def allow(addresses: Iterable[str]) -> None:
    """Remember addresses, at and below which objects may be read on this machine.

    Args:
        addresses: paths and addresses as the user gave them; paths need no permission.

    Raises:
        SettingsError: an address has a password or a line break in it, or names nothing.
        NotWrittenError: the file cannot be written.
    """
    wanted = [object_address(one) for one in addresses if is_object(one)]
    for address in wanted:
        if len(address.splitlines()) > 1:
            raise SettingsError(f"{address!r} has a line break in it; give a folder above it")
    new = [one for one in dict.fromkeys(wanted) if not is_allowed(one)]
    if not new:
        return
    file = allowed_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        is_cut = file.exists() and not file.read_bytes().endswith(b"\n")
        lines = "".join(f"{one}\n" for one in new).encode("utf-8", "surrogateescape")
        with file.open("ab") as stream:  # so two processes keep each other's lines
            stream.write(b"\n" * is_cut + lines)
    except OSError as error:
        raise NotWrittenError(
            f"{file}, which keeps the addresses that may be read, cannot be written "
            f"({error.strerror}); set {CONFIG_VARIABLE} to a folder for it, or "
            f"{ALLOW_VARIABLE}={shlex.quote(','.join(new))}"
        ) from error


def is_allowed(address: str) -> bool:
    """Whether an address is one of the allowed ones, or below one."""
    text = address.replace(os.sep, "/") if ON_WINDOWS else address
    roots = allowed()
    if {".", ".."} & set(re.split(r"[/\\]", text)):  # in some stores it leads elsewhere
        return text in roots
    return any(text == root or text.startswith(f"{root}/") for root in roots)


def check_allowed(address: str) -> None:
    """Check that an object or a folder of objects may be requested.

    Raises:
        AddressNotAllowedError: the user has not allowed it; the message has the command that does.
    """
    address = object_address(address)
    if is_allowed(address):
        return
    above, _, name = address.rpartition("/")
    folder = above if "." in name and not above.endswith("/") else address
    command = f"face2vec allow {shlex.quote(folder)}"
    raise AddressNotAllowedError(
        f"{folder} is not allowed on this machine: a gallery or a list can name any address, and "
        f"it would be read with your credentials; if you trust it, run: {command}"
    ).coded("address-not-allowed", folder=folder, command=command)


def warn_once(error: AddressNotAllowedError) -> None:
    """Log the message, once for each bucket, where the work goes on without the photo."""
    bucket = "/".join(error.values["folder"].split("/")[:3])
    if bucket not in _warned:
        _warned.add(bucket)
        log.warning("%s", error)


_warned: set[str] = set()


@lru_cache(1)
def _lines(file: Path, _mtime_ns: int, _size: int) -> tuple[str, ...]:
    lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return tuple(object_address(line) for line in lines if is_object(line))
