"""Counts the structure of the package: packages, floors, imports between them, cycles, long code.

    python scripts/structure.py [FOLDER OF THE PACKAGE]
    python scripts/structure.py --write     updates docs/architecture.md

A floor is the longest chain of imports below a package. ``docs/architecture.md`` has the output,
and the tests compare it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "face2vec"
LONGEST = 5

Graph = dict[str, set[str]]


def modules(package: Path) -> dict[str, ast.Module]:
    """The syntax tree of each module by its name below the package; "" for the package itself."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def module_imports(package: Path) -> Graph:
    """The modules that each module imports, anywhere in its code."""
    trees = modules(package)
    return {
        name: set(_imported(tree, package.name, trees)) - {name} for name, tree in trees.items()
    }


def _imported(tree: ast.Module, package: str, known: dict[str, ast.Module]) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        root, _, inner = node.module.partition(".")
        if root != package:
            continue
        for alias in node.names:
            deeper = f"{inner}.{alias.name}".strip(".")
            yield deeper if deeper in known else inner


def room(module: str) -> str:
    """The package that a module belongs to, or the module itself if it is in none."""
    return module.partition(".")[0]


def rooms_of(graph: Graph) -> Graph:
    """Imports between packages. The package's own ``__init__`` and ``__main__`` are left out."""
    rooms: Graph = {}
    for module, imported in graph.items():
        if module not in ("", "__main__"):
            others = {room(name) for name in imported if name not in ("", "__main__")}
            rooms.setdefault(room(module), set()).update(others - {room(module)})
    return rooms


def floors_of(rooms: Graph) -> dict[str, int]:
    """The floor of each package; 1 for a package that imports none."""
    floors: dict[str, int] = {}
    for name in TopologicalSorter(rooms).static_order():
        floors[name] = 1 + max((floors[below] for below in rooms[name]), default=0)
    return floors


def cycles_in(graph: Graph) -> int:
    """1 if some modules import each other in a cycle, 0 otherwise."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return 1
    return 0


def longest(package: Path) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """(lines, name) of the longest modules and of the longest functions."""
    files, functions = [], []
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(package).as_posix()
        files.append((len(text.splitlines()), name))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                functions.append((node.end_lineno - node.lineno + 1, f"{name}: {node.name}"))  # type: ignore[operator]
    return sorted(files)[::-1][:LONGEST], sorted(functions)[::-1][:LONGEST]


def report(package: Path) -> str:
    """The structure as Markdown."""
    graph = module_imports(package)
    rooms = rooms_of(graph)
    floors = floors_of(rooms)
    arrows = sum(map(len, rooms.values()))
    highest = max(floors.values())
    lines = [
        f"{len(graph)} modules in {len(rooms)} rooms (packages, and modules beside them) on "
        f"{highest} floors, {arrows} imports between rooms, {cycles_in(graph)} cycles.",
        "",
        "```text",
    ]
    for floor in range(max(floors.values()), 0, -1):
        names = sorted(name for name, height in floors.items() if height == floor)
        lines.append(f"{floor:>2}  {'  '.join(names)}")
    lines += [
        "```",
        "",
        "| longest modules | lines | longest functions | lines |",
        "|---|---|---|---|",
    ]
    for (size, file), (length, function) in zip(*longest(package), strict=True):
        lines.append(f"| `{file}` | {size} | `{function}` | {length} |")
    return "\n".join(lines) + "\n"


def write_page() -> None:
    """Put the report into docs/architecture.md."""
    page = PACKAGE.parent / "docs" / "architecture.md"
    before, _, rest = page.read_text(encoding="utf-8").partition("<!-- structure -->\n")
    _, end, after = rest.partition("<!-- /structure -->")
    text = f"{before}<!-- structure -->\n{report(PACKAGE)}{end}{after}"
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        write_page()
    else:
        folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else PACKAGE
        sys.stdout.write(report(folder))
