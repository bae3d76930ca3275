"""A load test of the service on the loopback interface, beside bare calls of the engine.

    python benchmarks/serve.py GALLERY PHOTO... [--clients 64] [--seconds 60]

Starts ``face2vec serve`` in a process of its own and searches with the photos from many clients at
once. Beside it, in the same run: a bare FastAPI route around the same engine, without token, limits
or decoding in processes; and one bare call of the engine after another. Writes
``results/serve.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import uvicorn
from common import publish, table
from fastapi import FastAPI, UploadFile

from face2vec import Face2Vec

TOKEN = "load-test-0123456789abcdef"


def rss(process: int) -> float:
    """Memory of a process in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


async def load(
    address: str, photos: list[bytes], clients: int, seconds: float
) -> tuple[list[float], int]:
    """Seconds of each search, and how many were not answered with 200."""
    taken: list[float] = []
    errors = 0
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=clients)

    async with httpx.AsyncClient(
        headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120, limits=limits, trust_env=False
    ) as http:

        async def client(number: int) -> None:
            nonlocal errors
            while time.monotonic() < until:
                number += 1
                started = time.monotonic()
                answer = await http.post(
                    address, files={"photo": photos[number % len(photos)]}, data={"k": "10"}
                )
                taken.append(time.monotonic() - started)
                errors += answer.status_code != 200

        await asyncio.gather(*(client(number) for number in range(clients)))
    return taken, errors


def bare(gallery: Path, port: int) -> None:
    """A FastAPI route around the engine, and nothing else."""
    engine = Face2Vec(gallery)
    app = FastAPI()

    @app.post("/search")
    def search(photo: UploadFile) -> list[dict[str, object]]:
        return [one.to_dict() for one in engine.search(photo.file.read(), 10)]

    uvicorn.run(app, port=port, log_level="error")


def wait_for(address: str) -> None:
    while True:
        try:
            httpx.get(address, trust_env=False)
            return
        except httpx.HTTPError:
            time.sleep(0.1)


def row(name: str, taken: list[float], errors: int, seconds: float, memory: str) -> list[str]:
    cuts = statistics.quantiles(taken, n=100)
    times = [f"{1000 * cuts[at - 1]:.0f}" for at in (50, 95, 99)]
    return [name, f"{len(taken) / seconds:.1f}", *times, f"{errors} of {len(taken):,}", memory]


def loads(
    name: str,
    address: str,
    process: int,
    photos: list[bytes],
    runs: tuple[int, ...],
    seconds: float,
) -> list[list[str]]:
    """One row for each number of clients, after a few searches that are not measured."""
    asyncio.run(load(address, photos, 4, 5))
    rows, before = [], rss(process)
    for number, clients in enumerate(runs):
        taken, errors = asyncio.run(load(address, photos, clients, seconds))
        memory = f"{before:.0f} → {(before := rss(process)):.0f}"
        again = ", again" if clients in runs[:number] else ""
        many = f"{name}, {clients} client{'s' if clients > 1 else ''}{again}"
        rows.append(row(many, taken, errors, seconds, memory))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("gallery", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    photos = [photo.read_bytes() for photo in given.photos]
    rows: list[list[str]] = []
    environment = {**os.environ, "FACE2VEC_TOKEN": TOKEN}
    command = [sys.executable, "-m", "face2vec", "serve", str(given.gallery), "--no-browser"]
    service = subprocess.Popen([*command, "--port", "8765"], env=environment)
    try:
        wait_for("http://127.0.0.1:8765/readyz")
        address = "http://127.0.0.1:8765/v1/search/photo"
        runs = (1, given.clients, given.clients)
        rows += loads("`face2vec serve`", address, service.pid, photos, runs, given.seconds)
    finally:
        service.terminate()
        service.wait()
    other = multiprocessing.get_context("spawn").Process(target=bare, args=(given.gallery, 8766))
    other.start()
    assert other.pid is not None
    try:
        wait_for("http://127.0.0.1:8766/docs")
        address = "http://127.0.0.1:8766/search"
        runs = (1, given.clients)
        rows += loads("a bare FastAPI route", address, other.pid, photos, runs, given.seconds)
    finally:
        other.kill()
        other.join()
    with Face2Vec(given.gallery) as engine:
        for photo in photos[:8]:
            engine.search(photo, 10)
        taken = []
        until = time.monotonic() + given.seconds / 2
        while time.monotonic() < until:
            started = time.monotonic()
            engine.search(photos[len(taken) % len(photos)], 10)
            taken.append(time.monotonic() - started)
        rows.append(row("one call of the engine after another", taken, 0, given.seconds / 2, "–"))
        faces = engine.info()["faces"]
    head = ("", "searches a second", "p50, ms", "p95, ms", "p99, ms", "not answered", "memory, MiB")
    body = (
        f"Searches with {len(photos)} uploaded photos among {faces:,} faces, k = 10, on loopback, "
        f"where clients and service share the cores.\n\n{table(head, rows)}"
    )
    publish(
        "serve",
        "The service under load",
        body,
        "python benchmarks/serve.py GALLERY PHOTO...",
        ("face2vec", "fastapi", "uvicorn"),
    )


if __name__ == "__main__":
    main()
