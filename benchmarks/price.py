"""What honest probabilities cost a search: with and without what a gallery says of its faces.

    python benchmarks/price.py --faces 1000000

One gallery of drawn faces with the spectrum of ``mini``, ten a person (`search.py`), with mini's
calibration. The same queries are searched in turn without probabilities, with the shipped
calibration alone, and with the gallery as its own cohort and its estimate of mates, as `search`
does. What a gallery says is looked at once, before; its time is a row of its own.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from common import arguments, publish, seconds, table
from scale import record
from search import Drawn, read_all, spectrum_of

from face2vec import Face2Vec, samples
from face2vec.session import Surroundings

PACKAGES = ("face2vec", "faiss-cpu", "numpy")


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--faces", type=int, default=1_000_000)
    given = parser.parse_args()
    drawn = Drawn(spectrum_of("mini"), given.faces // 10)
    embeddings, queries = drawn.faces(given.faces, seed=1), drawn.faces(500, seed=2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples.write(folder / "photos", people=2, photos=1)
        with Face2Vec(folder / "made", model="mini") as engine:
            engine.add(folder / "photos")
            fingerprint = engine._session.gallery().fingerprint
        with Face2Vec(folder / "gallery") as engine:
            record(engine, embeddings, fingerprint)
            session = engine._session
            with engine.snapshot() as now:
                looked = seconds(lambda: session.surroundings(now))
                whole = session.known_surroundings(now)
            shipped = Surroundings(session.calibration(), 1.0, whole.state, whole.count)
            ways = {"similarities only": None, "shipped calibration": shipped, "cohort": whole}
            times: dict[str, tuple[list[float], list[float]]] = {way: ([], []) for way in ways}
            for start in range(0, 500, 100):
                engine.search(queries[start : start + 100], k=10)
            for _ in range(given.rounds):
                for row in range(200):
                    for way, around in ways.items():
                        session.surroundings = lambda _, around=around: around
                        one = queries[row : row + 1]
                        took = seconds(lambda one=one: read_all(engine.search(one, k=10)))
                        times[way][0].append(took)
                for start in range(0, 500, 100):
                    for way, around in ways.items():
                        session.surroundings = lambda _, around=around: around
                        some = queries[start : start + 100]
                        took = seconds(lambda some=some: read_all(engine.search(some, k=10)))
                        times[way][1].append(took)
            kind = engine.info()["index"]
    least = [statistics.median(part) for part in times["similarities only"]]
    rows = []
    for way, parts in times.items():
        middle = [statistics.median(part) for part in parts]
        rows.append(
            [
                way,
                *(
                    words
                    for one, bare in zip(middle, least, strict=True)
                    for words in (f"{1000 * one:.2f}", f"{one / bare - 1:+.1%}")
                ),
            ]
        )
    head = ("answers with", "one query, ms", "more", "100 queries, ms", "more")
    body = (
        f"{given.faces:,} faces, {embeddings.shape[1]} numbers, index `{kind}`:\n\n"
        f"{table(head, rows)}\n\nMedians, all ten matches read. Looking at the gallery, once for "
        f"as long as it does not change much, took {looked:.2f} s."
    )
    command = f"python benchmarks/price.py --faces {given.faces}"
    publish("price", "The price of probabilities", body, command, PACKAGES)


if __name__ == "__main__":
    main()
