"""Addresses of galleries in Milvus: ``milvus://user:password@host:19530/archive``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from face2vec.errors import SettingsError

SCHEME = "milvus://"
TOKEN = "FACE2VEC_MILVUS_TOKEN"
"""Variable of the environment with the password, or with the whole token ``user:password``."""
POSTGRES = "FACE2VEC_POSTGRES"
"""Variable of the environment with the address of the PostgreSQL database."""
PORT = 19530
_ARCHIVE = re.compile(r"[a-z_][a-z0-9_]{0,50}")
_FORM = f"{SCHEME}[USER[:PASSWORD]@]HOST[:PORT]/ARCHIVE"
_SECRET = re.compile(r"(?<=://)[^/\s@]*@")
_PASSWORD = re.compile(r"(?i)\b(password\s*=\s*)('[^']*'|\S+)")


@dataclass(frozen=True)
class MilvusAddress:
    """Where a gallery in Milvus is. As text it has no user and no password.

    Attributes:
        host: name or address of the server.
        port: its port.
        archive: name of the gallery there.
        token: ``user:password``, ``password``, or empty; never printed.
        database: address of the PostgreSQL database, or empty; never printed.
    """

    host: str
    port: int
    archive: str
    token: str = field(default="", repr=False)
    database: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> MilvusAddress:
        """Read an address; the password and the database may come from the environment.

        Raises:
            SettingsError: it is not an address; the message has no password.
        """
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port or PORT
        except ValueError:
            host, port = None, PORT
        archive = parts.path.removeprefix("/").removesuffix("/") if host else ""
        if not host or not _ARCHIVE.fullmatch(archive) or parts.query or parts.fragment:
            raise SettingsError(
                f"{redacted(text)!r} is not the address of a gallery in Milvus; give {_FORM}, "
                "with an archive of lower-case letters, digits and underscores"
            )
        user, password = (unquote(one or "") for one in (parts.username, parts.password))
        token = password or os.environ.get(TOKEN, "")
        if user and not token.startswith(f"{user}:"):
            token = f"{user}:{token}"
        return cls(host, port, archive, token, os.environ.get(POSTGRES, ""))

    @property
    def uri(self) -> str:
        """What a client connects to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{SCHEME}{host}:{self.port}/{self.archive}"


def is_address(place: object) -> bool:
    """Whether a place of a gallery is an address in Milvus and not a folder."""
    if isinstance(place, MilvusAddress):
        return True
    return isinstance(place, str) and place.startswith(SCHEME)


def address_of(place: str | MilvusAddress) -> MilvusAddress:
    """The address, parsed if it is text.

    Raises:
        SettingsError: it is not an address.
    """
    return place if isinstance(place, MilvusAddress) else MilvusAddress.parse(place)


def redacted(text: str, address: MilvusAddress | None = None) -> str:
    """A text without users and passwords of addresses.

    Args:
        text: such as the message of another program.
        address: also take out the password of this one, wherever it stands.
    """
    if address is not None:
        password = address.token.partition(":")[2] or address.token
        for secret in (address.token, password, address.database):
            if secret:
                text = text.replace(secret, "***")
    text = _SECRET.sub("***@", text)
    return _PASSWORD.sub(r"\1***", text)
