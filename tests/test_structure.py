"""The structure of the package is what docs/architecture.md says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def structure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("structure", PROJECT / "scripts" / "structure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_structure_has_no_cycles(structure: ModuleType) -> None:
    graph = structure.module_imports(structure.PACKAGE)
    assert structure.cycles_in(graph) == 0
    assert structure.cycles_in(structure.rooms_of(graph)) == 0


def test_architecture_page_has_the_structure(structure: ModuleType) -> None:
    """After a change: python scripts/structure.py --write."""
    page = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (quoted,) = re.findall(r"<!-- structure -->\n(.*?)<!-- /structure -->", page, re.DOTALL)
    assert quoted == structure.report(structure.PACKAGE)


def test_structure_counts_floors_and_cycles(structure: ModuleType, tmp_path: Path) -> None:
    package = tmp_path / "p"
    (package / "low").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "low/__init__.py": "",
        "low/a.py": "from p.low import b\n",
        "low/b.py": "def long():\n    return 1\n",
        "middle.py": "from p.low.a import b\n",
        "top.py": "from p.middle import x\nfrom p.low import a\n",
    }
    for name, text in files.items():
        (package / name).write_text(text, encoding="utf-8")
    graph = structure.module_imports(package)
    rooms = structure.rooms_of(graph)
    assert rooms == {"low": set(), "middle": {"low"}, "top": {"low", "middle"}}
    assert structure.floors_of(rooms) == {"low": 1, "middle": 2, "top": 3}
    assert structure.cycles_in(graph) == 0
    (package / "low" / "b.py").write_text("from p.top import y\n", encoding="utf-8")
    assert structure.cycles_in(structure.module_imports(package)) == 1
