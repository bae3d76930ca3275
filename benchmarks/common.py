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
QUOTING = tuple(
    ROOT / page
    for page in ("README.md", "docs/gpu.md", "docs/models/mini.md", "docs/results/people.md")
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


def publish(name: str, title: str, body: str, command: str, packages: Sequence[str]) -> None:
    """Print the result, write it to ``results/NAME.md``, and to the pages that quote it."""
    made = f"`{command}`, {datetime.date.today()}, {machine()}; {versions(*packages)}."
    text = f"# {title}\n\n{body}\n\n{made}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print("\n" + text)
    for page in QUOTING:
        before, found, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
        if found:
            _, end, after = rest.partition(f"<!-- /{name} -->")
            quoted = f"{title}:\n\n{body}\n\n<sub>{made}</sub>\n"
            page.write_text(before + found + quoted + end + after, encoding="utf-8")


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(across, 0) * max(down, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(shared / (sum(areas) - shared))
