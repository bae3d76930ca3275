"""What the benchmarks share: the machine in words, paired timing, and tables."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
QUOTING = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
"""Pages that quote results: ``publish`` replaces what stands between a result's two marks."""

RATES = "fairness-mini2"
KINDS = (
    ("lfw", "LFW"),
    ("bfw_white", "white public figures"),
    ("bfw_black", "Black public figures"),
    ("bfw_eastasian", "East Asian public figures"),
    ("bfw_southasian", "South Asian public figures"),
    ("utk, adults, women, Black", "Black women (UTKFace)"),
    ("ff, adults", "adults of all origins (FairFace)"),
    ("ff, under 13", "children under 13 (FairFace)"),
    ("mfr2_masks", "people of whom many wear masks"),
)
"""Rows of the table of error rates in README.md, and what it calls them."""

# The table in README.md: words, and the cells of the results that replace each {}, as
# (result, first cells of the row, head of the column).
SUMMARY: tuple[tuple[str, str, tuple[tuple[str, tuple[str, ...], str], ...]], ...] = (
    (
        "Photos to finished gallery, FaceNet's network on OpenVINO",
        "{} photos/s, {} times keras-facenet's `extract` in a loop",
        (
            ("build", ("face2vec, OpenVINO",), "photos/s"),
            ("build", ("face2vec, OpenVINO",), "times keras-facenet"),
        ),
    ),
    (
        "Detection, LFW photos",
        "{} photos/s, {} times the package `mtcnn`",
        (
            ("detect", ("LFW photos, face2vec in processes",), "photos/s"),
            ("detect", ("LFW photos, face2vec in processes",), "times mtcnn"),
        ),
    ),
    (
        "Faces of `mtcnn` (confidence ≥ 0.9) that face2vec finds, IoU ≥ 0.9",
        "{}",
        (("parity", ("found with IoU of 0.9 or more",), ""),),
    ),
    (
        "Search among 10,000 faces, `flat`",
        "{} ms a query, exact",
        (("search", ("10,000", "flat", "its file"), "face2vec, ms"),),
    ),
    (
        "Search among 1,000,000 faces, `pq`",
        "{} ms a query, recall@10 {}, {} in memory",
        (
            ("search-1e6", ("1,000,000", "pq", "its file"), "face2vec, ms"),
            ("search-1e6", ("1,000,000", "pq"), "recall@10"),
            ("search-1e6", ("1,000,000", "pq"), "index on disk and in memory"),
        ),
    ),
    (
        "Indexing 10,000 unchanged photos again",
        "{} (first run: {})",
        (("rerun", ("10,000",), "second run"), ("rerun", ("10,000",), "first run")),
    ),
    (
        "`face2vec search`, whole process",
        "{}",
        (("cold", ("`face2vec search`, whole process",), "median"),),
    ),
    (
        "LFW View 2 accuracy of `mini2`, the default model",
        "{}",
        (("recognition-lfw-mini2", ("View 2 accuracy, ten folds ± standard error",), ""),),
    ),
    (
        "CelebA subset, `mini2`: most similar photo shows the same person",
        "{} of 7,425 queries",
        (
            (
                "recognition-celeba-mini2",
                ("nearest other photo shows the same person (rank-1)",),
                "",
            ),
        ),
    ),
)


def arguments(about: str) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rounds", type=int, default=3, help="times each way is measured, in turn")
    return parser


def machine() -> str:
    """Processor, cores and memory."""
    name = platform.processor() or platform.machine()
    flags = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
            if line.startswith("flags"):
                has = [flag for flag in ("avx2", "avx512f", "avx512_bf16") if flag in line.split()]
                flags = ", " + " ".join(has)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}{flags}, {os.cpu_count()} cores, {memory:.0f} GiB"


def versions(*packages: str) -> str:
    """Python and the packages that are installed of those named."""
    found = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def seconds(do: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def in_turn(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Figures of each way, measured one after the other, again and again."""
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, measure in ways.items():
            figures[name].append(measure())
            print(f"round {turn + 1}: {name}: {figures[name][-1]:.4g}", flush=True)
    return figures


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds of ours / theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def cell(result: str, row: Sequence[str], column: str) -> str:
    """One cell of a table in ``results/RESULT.md``, without bold marks.

    Args:
        result: name of the file.
        row: the row's first cells.
        column: its head; of two with the same head the first. An empty one is the second column.

    Raises:
        KeyError: no table has such a cell.
    """
    head: list[str] = []
    for line in (RESULTS / f"{result}.md").read_text(encoding="utf-8").splitlines():
        cells = [one.strip() for one in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells
        elif cells[: len(row)] == list(row) and (column in head or not column):
            return cells[head.index(column) if column else 1].replace("**", "")
    raise KeyError(f"{result}.md has no row {row} with a column {column!r}")


def summary() -> str:
    """The table in README.md, made of the results."""
    rows, machines = [], []
    for what, words, cells in SUMMARY:
        results = list(dict.fromkeys(result for result, _, _ in cells))
        made = (RESULTS / f"{results[0]}.md").read_text(encoding="utf-8").splitlines()[-1]
        _, _, ran = made.rpartition("`, ")
        date, _, where = ran.partition("; ")[0].partition(", ")
        machines.append(where)
        links = ", ".join(f"[{name}](benchmarks/results/{name}.md)" for name in results)
        rows.append((what, words.format(*(cell(*one) for one in cells)), date, links))
    body = table(("what", "measured", "date", "from"), rows)
    return f"{body}\n\n<sub>On: {'; '.join(dict.fromkeys(machines))}.</sub>\n"


def rates() -> str:
    """The table of error rates in README.md, made of the results."""
    columns = ("÷ at 1e-3, before", "verify", "gallery", "95 %")
    rows = [(words, *(cell(RATES, [kind], column) for column in columns)) for kind, words in KINDS]
    head = ["pairs of strangers", "one threshold for all", "two photos"]
    head += ["in a gallery of such people", "95 % of this"]
    return f"{table(head, rows)}\n"


def _quote(page: Path, name: str, text: str) -> None:
    """Replace what stands between the two marks of ``name`` in a page, where it has them."""
    before, found, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
    if found:
        _, end, after = rest.partition(f"<!-- /{name} -->")
        page.write_text(before + found + text + end + after, encoding="utf-8")


def publish(name: str, title: str, body: str, command: str, packages: Sequence[str]) -> None:
    """Print the result, write it to ``results/NAME.md``, and to the pages that quote it."""
    made = f"`{command}`, {datetime.date.today()}, {machine()}; {versions(*packages)}."
    text = f"# {title}\n\n{body}\n\n{made}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print("\n" + text)
    for page in QUOTING:
        _quote(page, name, f"{title}:\n\n{body}\n\n<sub>{made}</sub>\n")
    if any(name == result for _, _, cells in SUMMARY for result, _, _ in cells):
        _quote(ROOT / "README.md", "summary", summary())
    if name == RATES:
        _quote(ROOT / "README.md", "rates", rates())


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(across, 0) * max(down, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(shared / (sum(areas) - shared))
