"""A gallery of drawn people and a service over it, for tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image

from face2vec import Face2Vec, samples
from face2vec.server.app import serving
from face2vec.server.settings import Limits, Settings

TOKEN, READ_TOKEN = "write-0123456789abcdef", "read-0123456789abcdef"
PEOPLE, PHOTOS = 8, 3
UNGROUPED = ("person-006/", "person-007/")
"""Folders of photos that are added last, so that their faces belong to nobody yet."""


def drawn_gallery(folder: Path) -> Path:
    """A folder with photos of drawn people and a gallery of them; two people have names.

    Args:
        folder: for ``photos`` and ``gallery``.
    """
    samples.write(folder / "photos", people=PEOPLE, photos=PHOTOS, groups=2, seed=3)
    with Face2Vec(folder / "gallery", model="mini") as engine:
        engine.add(folder / "photos", exclude=UNGROUPED)
        names = {"Ada": "person-000", "Bob": "person-001"}
        engine.enroll({name: [folder / "photos" / who] for name, who in names.items()})
        engine.find_people()
        engine.add(folder / "photos")
    return folder


class Served:
    """A running service.

    Args:
        address: with the token.
        folder: of photos and gallery.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self.address, self.folder = address, folder
        self.base = f"http://{urlsplit(address).netloc}"
        self.http = self.client(TOKEN)
        self.reader = self.client(READ_TOKEN)
        self.nobody = httpx.Client(base_url=self.base, trust_env=False, timeout=60)

    def client(self, token: str) -> httpx.Client:
        """A client that sends a token."""
        return httpx.Client(
            base_url=self.base,
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=60,
        )

    def get(self, path: str, **values: Any) -> Any:
        """The JSON of a GET request, which must succeed."""
        answer = self.http.get(path, **values)
        assert answer.is_success, answer.text
        return answer.json()

    def post(self, path: str, json: Any = None, **values: Any) -> Any:
        """The JSON of a POST request, which must succeed."""
        answer = self.http.post(path, json=json, **values)
        assert answer.is_success, answer.text
        return answer.json()

    def photo(self, name: str) -> Path:
        """The path of a photo below the folder of photos."""
        return self.folder / "photos" / name

    def close(self) -> None:
        """Close the clients."""
        for one in (self.http, self.reader, self.nobody):
            one.close()


@contextmanager
def served(folder: Path, **settings: Any) -> Iterator[Served]:
    """A service over the gallery in a folder.

    Args:
        folder: as `drawn_gallery` makes it.
        settings: of the service, besides the tokens and a free port.
    """
    chosen = {
        "roots": (folder / "photos",),
        "token": TOKEN,
        "read_token": READ_TOKEN,
        "port": 0,
        **settings,
    }
    with serving(Settings(folder / "gallery", **chosen)) as address:
        one = Served(address, folder)
        try:
            yield one
        finally:
            one.close()


def add_missed(service: Served, folder: Path) -> tuple[int, tuple[float, float, float, float]]:
    """Add a photo of person 0, small and turned, whose face the detector misses.

    Args:
        service: over the gallery that gets it.
        folder: for the photo.

    Returns:
        The number of the photo, and the box of the face in it.
    """
    with Image.open(service.photo("person-000/0.jpg")) as image:
        small = image.resize((image.width // 4, image.height // 4)).rotate(90, expand=True)
    small.save(folder / "missed.png")
    with Face2Vec(service.folder / "gallery") as engine:
        assert engine.add(folder / "missed.png").no_face == 1
        (face,) = engine.encode(service.photo("person-000/0.jpg"))
        left, top, right, bottom = (value / 4 for value in face.box)
        with engine.snapshot() as now:
            number = now.content_at(str(folder.resolve() / "missed.png"))
    assert number is not None
    return number, (top, small.height - right, bottom, small.height - left)


def copied(folder: Path, place: Path) -> Path:
    """A copy of a folder's gallery; the photos stay where they are, and are linked."""
    place.mkdir(parents=True, exist_ok=True)
    shutil.copytree(
        folder / "gallery", place / "gallery", ignore=shutil.ignore_patterns("thumbnails")
    )
    (place / "photos").symlink_to(folder / "photos")
    return place


__all__ = ["Limits", "Served", "add_missed", "copied", "drawn_gallery", "served"]
