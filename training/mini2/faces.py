"""Packs training faces into archives for `train.py`, and unpacks them on the machine with the GPU.

    python training/mini2/faces.py pack FOLDER FACES.tar FACES.csv [FACES.tar FACES.csv …]
    python training/mini2/faces.py unpack FACES.npz … FOLDER

The tables have the columns file and set. `pack` writes ``faces-1.npz`` and so on, in random order,
and ``held.npz`` with some of the faces that are left out: rows divisible by 5 of the sets utk, ff
and aaf.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tarfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

HELD_OUT = ("utk", "ff", "aaf")
MEASURED_ON = 1_024
AT_ONCE = 500
WORKERS = 8


def pack(folder: Path, sources: list[Path], parts: int) -> None:
    """Write the archives."""
    learn: list[bytes] = []
    held: list[bytes] = []
    for archive, table in zip(sources[::2], sources[1::2], strict=True):
        with table.open(newline="", encoding="utf-8") as stream:
            rows = {row["file"]: (n, row["set"]) for n, row in enumerate(csv.DictReader(stream))}
        with tarfile.open(archive) as opened:
            for member in opened:
                file = opened.extractfile(member)
                if file is None or member.name not in rows:
                    continue
                number, group = rows[member.name]
                left_out = group in HELD_OUT and number % 5 == 0
                (held if left_out else learn).append(file.read())
    rng = np.random.default_rng(0)
    rng.shuffle(learn)
    rng.shuffle(held)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "held.npz", held[:MEASURED_ON])
    for number in range(parts):
        _write(folder / f"faces-{number + 1}.npz", learn[number::parts])
    sys.stdout.write(f"{len(learn):,} faces to learn from, {len(held):,} left out\n")


def unpack(source: Path, folder: Path) -> None:
    """Decode an archive to uint8 (n, 3, side, side), into a file of its name in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{source.stem}.npy"
    with np.load(source) as stored:
        ends, data = np.cumsum(stored["lengths"]), stored["data"].tobytes()
    starts = ends - np.diff(ends, prepend=0)
    files = [data[a:b] for a, b in zip(starts, ends, strict=True)]
    with ProcessPoolExecutor(WORKERS) as pool:
        several = [files[at : at + AT_ONCE] for at in range(0, len(files), AT_ONCE)]
        crops = np.concatenate(list(pool.map(_decoded, several)))
    writing = target.with_suffix(".part")
    with writing.open("wb") as stream:
        np.save(stream, crops)
    writing.rename(target)
    sys.stdout.write(f"{len(crops):,} faces in {target}\n")


def _write(path: Path, files: list[bytes]) -> None:
    data = np.frombuffer(b"".join(files), np.uint8)
    np.savez(path, lengths=np.array([len(one) for one in files]), data=data)


def _decoded(files: list[bytes]) -> Any:
    from PIL import Image

    crops = [np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in files]
    return np.stack(crops).transpose(0, 3, 1, 2)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    actions = parser.add_subparsers(dest="action", required=True)
    one = actions.add_parser("pack")
    one.add_argument("folder", type=Path)
    one.add_argument("sources", type=Path, nargs="+", help="an archive and its table, in turn")
    one.add_argument("--parts", type=int, default=2)
    one = actions.add_parser("unpack")
    one.add_argument("sources", type=Path, nargs="+")
    one.add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.action == "pack":
        pack(given.folder, given.sources, given.parts)
    else:
        for source in given.sources:
            unpack(source, given.folder)


if __name__ == "__main__":
    main()
