"""Fuzz targets for atheris: the decoder of photos, and the reader of galleries.

    pip install atheris
    python tests/fuzz.py photo CORPUS [OPTIONS OF LIBFUZZER]
    python tests/fuzz.py gallery CORPUS -max_total_time=600

CORPUS is a folder for inputs that reach new code; if it is empty, small valid ones are put into it.
Errors of face2vec are what bad input should give. Everything else stops the run, with the input.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris  # type: ignore[import-not-found]  # only where it can be installed

with atheris.instrument_imports(include=["face2vec"]):
    import numpy as np

    from face2vec import Face2Vec, Face2VecError, open_photo

from faults import made_world, photo_files


def photo(data: bytes) -> None:
    """Decode one input."""
    with suppress(Face2VecError):
        open_photo(data)


class GalleryTarget:
    """Opens galleries whose SQLite file, or index, is the input."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.query = np.ones(64, np.float32) / 8

    def __call__(self, data: bytes) -> None:
        """The first byte chooses the file, the others are its content."""
        if not data:
            return
        name = "index.faiss" if data[0] % 2 else "gallery.sqlite"
        for file in (self._folder / "sound").iterdir():
            (self._folder / "gallery" / file.name).write_bytes(file.read_bytes())
        (self._folder / "gallery" / name).write_bytes(data[1:])
        with (
            suppress(Face2VecError),
            Face2Vec(self._folder / "gallery", runtime="onnxruntime", threads=1) as engine,
        ):
            engine.search(self.query, k=3)
            engine.people()
            engine.info()


def targets(folder: Path) -> dict[str, tuple[Callable[[bytes], None], list[bytes]]]:
    """Each target with inputs to start from."""
    world = made_world(folder)
    (folder / "sound").mkdir()
    for file in list(world.gallery.iterdir()):
        if file.is_file():
            file.rename(folder / "sound" / file.name)
    whole = [
        bytes([index]) + (folder / "sound" / name).read_bytes()
        for index, name in enumerate(("gallery.sqlite", "index.faiss"))
    ]
    return {
        "photo": (photo, list(photo_files().values())),
        "gallery": (GalleryTarget(folder), whole),
    }


def main() -> None:
    """Run one target."""
    name, corpus = sys.argv[1], Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        target, seeds = targets(Path(folder))[name]
        corpus.mkdir(parents=True, exist_ok=True)
        if not any(corpus.iterdir()):
            for number, seed in enumerate(seeds):
                (corpus / f"seed-{number}").write_bytes(seed)
        atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
