"""Settings of the service."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from face2vec.errors import SettingsError
from face2vec.files import expanded

TOKEN_VARIABLE = "FACE2VEC_TOKEN"
READ_TOKEN_VARIABLE = "FACE2VEC_READ_TOKEN"
SHORTEST_TOKEN = 16  # characters


def new_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Limits:
    """What a client may ask for.

    Attributes:
        upload_bytes: largest body of a request.
        pixels: largest photo.
        faces: largest number of faces that are answered for one photo; the most confident ones.
        batch: largest number of photos, faces or pairs in one request.
        matches: largest ``k``.
        header_seconds: time in which the headers of a request must arrive.
        body_seconds: time in which a body must arrive.
        photo_seconds: time in which a photo must be decoded.
        waiting: photos that wait to be encoded, for all clients together.
        rate: requests per second of one client address; None for no limit.
        memory: bytes of memory of a decoding process.
    """

    upload_bytes: int = 64 * 2**20
    pixels: int = 200_000_000
    faces: int = 200
    batch: int = 100
    matches: int = 1000
    header_seconds: float = 15.0
    body_seconds: float = 30.0
    photo_seconds: float = 30.0
    waiting: int = 256
    rate: float | None = 500.0
    memory: int = 2 * 2**30


@dataclass(frozen=True)
class Settings:
    """Settings of the service.

    Attributes:
        gallery: folder of the gallery.
        host: address to listen on.
        port: port to listen on; 0 for a free one.
        token: lets a client read and write.
        read_token: lets a client read only; None for no such token.
        roots: folders that may be indexed.
        hosts: names by which clients may call the service, besides ``host`` and the loopback names.
        show_paths: whether clients that read only see the paths of photos.
        log_names: whether the log of edits has the names of people.
        limits: what a client may ask for.
    """

    gallery: Path
    host: str = "127.0.0.1"
    port: int = 8000
    token: str = field(default_factory=new_token, repr=False)
    read_token: str | None = field(default=None, repr=False)
    roots: tuple[Path, ...] = ()
    hosts: tuple[str, ...] = ()
    show_paths: bool = False
    log_names: bool = False
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        for name, token in (("token", self.token), ("read-only token", self.read_token)):
            if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii()):
                raise SettingsError(
                    f"the {name} must have at least {SHORTEST_TOKEN} ASCII characters; make one: "
                    'python -c "import secrets; print(secrets.token_urlsafe(24))"'
                )
        if self.token == self.read_token:
            raise SettingsError("the token and the read-only token must differ")


def token_from(
    file: Path | None, environment: Mapping[str, str] = os.environ, variable: str = TOKEN_VARIABLE
) -> str | None:
    """The token that a user has chosen, from a file or the environment; None if there is none.

    Raises:
        SettingsError: the file cannot be read, or others may read it.
    """
    if file is None:
        return environment.get(variable) or None
    path = Path(expanded(file))
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise SettingsError(f"other users can read {path}; run: chmod 600 {path}")
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the token file {path}: {error}") from error


def checked_roots(roots: Sequence[Path]) -> tuple[Path, ...]:
    """The folders that may be indexed, with links resolved.

    Raises:
        SettingsError: one of them is no folder.
    """
    found = []
    for root in roots:
        path = Path(expanded(root))
        if not path.is_dir():
            raise SettingsError(f"{path} is not a folder; give an existing folder as --root")
        found.append(path.resolve())
    return tuple(found)
