"""The notebooks: they run, and are stored with the outputs of one run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from helpers import needs

import face2vec

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MOST_CELLS = 25
MOST_BYTES = 300_000
LOCAL_PATH = re.compile(r"(?:/(?:tmp|root|home|Users|work|private|var|opt)/|\b[A-Z]:\\)")
TENSORFLOW_LOG = re.compile(r"\s*$|WARNING: All log messages before absl|I\d{4} ")
"""Lines that some versions of TensorFlow write on import whatever the log level is."""

_DEFAULT = ("FACE2VEC_MODEL", "`mini2`")
_SMALL = ("FACE2VEC_MODEL", "`mini`")
MODELS = {
    "01_search_in_three_lines": _DEFAULT,
    "02_build_an_index": _DEFAULT,
    "03_train_a_facenet": ("`mini`",),
    "04_choose_a_threshold": _SMALL,
    "05_what_it_sees": _SMALL,
}
"""Texts with which the first cell of a notebook names the model of its outputs."""

FEWER = {
    "04_choose_a_threshold": (
        '("known", 40, 5, 1), ("family", 20, 4, 2)',
        '("known", 16, 4, 1), ("family", 6, 4, 2)',
    ),
    "05_what_it_sees": ("people=10, photos=3", "people=5, photos=2"),
}
"""What the tests replace in a notebook, so that it runs on fewer drawn people."""

TRAINING = [path for path in NOTEBOOKS if "train" in path.stem]
SEARCHING = [path for path in NOTEBOOKS if path not in TRAINING]

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_of(output: Any) -> str:
    """The text of an output without its pictures, whose base64 may contain any word."""
    data = {kind: text for kind, text in output.get("data", {}).items() if "image/" not in kind}
    return re.sub(r"data:image/\w+;base64,[\w+/=]*", "", json.dumps({**output, "data": data}))


def test_notebooks_are_the_expected_ones() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(MODELS)


@pytest.mark.slow
@pytest.mark.parametrize("path", SEARCHING, ids=lambda path: path.stem)
def test_notebook_runs(
    path: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACE2VEC_MODEL", str(tiny_model))
    execute(path, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.keras
@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_training_notebook_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("train", "keras")
    execute(path, tmp_path, monkeypatch)


def execute(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run all cells in an empty folder, and check that they write nothing to stderr."""
    monkeypatch.setenv("PYTHONPATH", str(Path(face2vec.__file__).parents[1]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    if path.stem in FEWER:
        many, fewer = FEWER[path.stem]
        assert any(many in cell.source for cell in code_cells(notebook))
        for cell in code_cells(notebook):
            cell.source = cell.source.replace(many, fewer)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=900, resources=place).execute()
    assert [cell.execution_count for cell in code_cells(notebook)] == list(
        range(1, len(code_cells(notebook)) + 1)
    )
    messages = [
        line
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.get("name") == "stderr"
        for line in output.text.splitlines()
        if not TENSORFLOW_LOG.match(line)
    ]
    assert messages == []


@each_notebook
def test_notebook_starts_with_text_and_all_imports(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    first, *others = code_cells(notebook)
    assert "from face2vec import" in first.source
    assert [c.source for c in others if re.search(r"^\s*(import|from) ", c.source, re.M)] == []


@each_notebook
def test_notebook_uses_public_names_only(path: Path) -> None:
    source = "\n".join(cell.source for cell in code_cells(nbformat.read(path, as_version=4)))
    assert re.findall(r"face2vec\.\w+ import|\.\s*_[a-z]\w*", source) == []


@each_notebook
def test_notebook_is_stored_with_the_outputs_of_one_run(path: Path) -> None:
    cells = code_cells(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert len(outputs) > len(cells) / 2
    assert [output for output in outputs if output.output_type == "error"] == []
    assert [output for output in outputs if output.get("name") == "stderr"] == []


@each_notebook
def test_notebook_is_small(path: Path) -> None:
    assert len(nbformat.read(path, as_version=4).cells) <= MOST_CELLS
    assert path.stat().st_size < MOST_BYTES


@each_notebook
def test_notebook_contains_no_local_paths(path: Path) -> None:
    for cell in code_cells(nbformat.read(path, as_version=4)):
        assert [LOCAL_PATH.findall(text_of(output)) for output in cell.outputs] == [
            [] for _ in cell.outputs
        ]


@each_notebook
def test_notebook_names_the_model_of_its_outputs(path: Path) -> None:
    opening = nbformat.read(path, as_version=4).cells[0].source
    for text in MODELS[path.stem]:
        assert text in opening


@each_notebook
def test_notebook_shows_results_in_its_third_cell(path: Path) -> None:
    third = nbformat.read(path, as_version=4).cells[2]
    assert third.cell_type == "code"
    assert third.outputs
