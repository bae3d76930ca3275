"""Tables of faces in each format: one suite for all of them."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import fake_fingerprint, needs

from face2vec.errors import MissingExtraError, SettingsError
from face2vec.exchange.formats import FORMATS, beside, load_table, save_table
from face2vec.exchange.table import COLUMNS, NUMBERS, Table

DIMENSION = 3
EMBEDDINGS = np.array([[1 / 3, -1e-7, 1.0], [0.1, 0.2, 3.4e-39], [-1, 0, 0.5]], np.float32)


@pytest.fixture(params=list(FORMATS))
def suffix(request: pytest.FixtureRequest) -> str:
    """Each format; Parquet needs a package."""
    if request.param == ".parquet":
        needs("export", "pyarrow")
    return str(request.param)


def full_table() -> Table:
    """Three faces: one of whom everything is known, one of whom nothing is, and an odd one."""
    columns: dict[str, list[Any]] = {
        name: [n / 3, None, -n * 1e9] for n, name in enumerate(NUMBERS)
    }
    columns |= {
        "face_id": [1, None, 3],
        "photo": ['/a/b "c", d;é\t写.jpg', None, "/x\n.jpg"],
        "copies": [["/one.jpg", '/"two",.jpg'], None, []],
        "sha256": ["ab" * 32, None, "00" * 32],
        "width": [4000, None, 0],
        "height": [3000, None, 0],
        "person": [7, None, None],
        "name": ["José", None, "7-of-9"],
        "confirmed": [True, None, False],
        "mark": [None, None, None],
    }
    return Table({name: columns[name] for name in COLUMNS}, EMBEDDINGS)


def test_table_comes_back_as_it_was_with_its_fingerprint(tmp_path: Path, suffix: str) -> None:
    file, whole = tmp_path / f"faces{suffix}", full_table()
    made_with = fake_fingerprint(DIMENSION)
    parts = [
        Table({name: values[some] for name, values in whole.columns.items()}, EMBEDDINGS[some])
        for some in (slice(0, 1), slice(1, 3))
    ]
    save_table(file, parts, made_with)
    table, stored = load_table(file)
    assert table.columns == whole.columns
    assert table.embeddings.dtype == np.float32
    assert np.array_equal(table.embeddings, EMBEDDINGS)
    assert stored == made_with
    extra = [] if FORMATS[suffix].keeps_fingerprint else [beside(file).name]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([file.name, *extra])


def test_empty_table_comes_back(tmp_path: Path, suffix: str) -> None:
    save_table(tmp_path / f"faces{suffix}", [], fake_fingerprint(DIMENSION))
    table, _ = load_table(tmp_path / f"faces{suffix}")
    assert len(table) == 0
    assert not any(table.columns.values())


def test_failed_export_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"faces{suffix}"
    file.write_bytes(b"old")

    def failing() -> Any:
        yield full_table()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        save_table(file, failing(), fake_fingerprint(DIMENSION))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.read_bytes() == b"old"


def write_minimal(file: Path) -> None:
    """A table as somebody else's program writes it: photo and embedding only."""
    photos, rows = ["a.jpg", "b.jpg", "b.jpg"], EMBEDDINGS.tolist()
    match file.suffix:
        case ".csv":
            with file.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream)
                writer.writerow(["photo", "note", *(f"embedding_{n}" for n in range(DIMENSION))])
                writer.writerows([p, "x", *row] for p, row in zip(photos, rows, strict=True))
        case ".jsonl":
            lines = [
                json.dumps({"photo": p, "embedding": row, "note": 1})
                for p, row in zip(photos, rows, strict=True)
            ]
            file.write_text("\n".join(lines), encoding="utf-8")
        case ".npz":
            np.savez(file, photo=np.array(photos), embedding=EMBEDDINGS.astype(np.float64))
        case ".parquet":
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.table({"photo": photos, "embedding": rows}), file)


def test_table_made_elsewhere_needs_only_embeddings(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"faces{suffix}"
    write_minimal(file)
    table, made_with = load_table(file)
    assert made_with is None
    assert table.columns == {"photo": ["a.jpg", "b.jpg", "b.jpg"]}
    assert np.array_equal(table.embeddings, EMBEDDINGS)


def test_json_lines_have_the_nesting_of_a_search_result(tmp_path: Path) -> None:
    save_table(tmp_path / "faces.jsonl", [full_table()], fake_fingerprint(DIMENSION))
    first, second, _ = map(json.loads, (tmp_path / "faces.jsonl").read_text().splitlines())
    assert first["box"] == [0, 1 / 3, 2 / 3, 1]
    assert first["landmarks"]["left_eye"] == [4 / 3, 5 / 3]
    assert first["landmarks"]["right_mouth"] == [4, 13 / 3]
    assert list(first["parts"]) == [
        *("face", "size", "sharpness", "yaw", "pitch", "roll", "covered", "child")
    ]
    assert [second[name] for name in ("box", "landmarks", "parts", "photo")] == [None] * 4
    assert first["embedding"] == [0.33333334, -1e-07, 1.0]  # the fewest digits


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "photo,face\na.jpg,1\n", "there is no column embedding_0"),
        ("a.csv", "embedding_0,embedding_1\n1,2\n1,x\n", "line 3: could not convert"),
        ("a.csv", "embedding_0,embedding_1\n1\n", "line 2: list index out of range"),
        ("a.jsonl", '{"photo": "a"}\n', "line 1: KeyError"),
        ("a.jsonl", '{"embedding": [1, 2]}\n{"embedding": [1]}\n', "have different lengths"),
        ("a.jsonl", "[1]\n", "line 1: "),
        ("a.npz", "x", "not a table of faces"),
    ],
)
def test_file_of_another_form_is_refused_with_its_place(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match=message):
        load_table(tmp_path / name)


def test_npz_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}, None], object)
    np.savez(tmp_path / "a.npz", photo=objects, embedding=EMBEDDINGS[:2])
    with pytest.raises(SettingsError, match="allow_pickle=False"):
        load_table(tmp_path / "a.npz")


def test_npz_with_columns_of_other_lengths_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", photo=np.array(["a"]), embedding=EMBEDDINGS)
    with pytest.raises(SettingsError, match="photo has 1 values for 3 faces"):
        load_table(tmp_path / "a.npz")


def test_suffix_that_names_no_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"must end in one of \.parquet, \.csv, \.npz, \.jsonl"):
        save_table(tmp_path / "faces.xlsx", [], fake_fingerprint(DIMENSION))
    with pytest.raises(SettingsError, match=r"cannot read .*gone\.csv: No such file"):
        load_table(tmp_path / "gone.csv")


def test_parquet_without_pyarrow_gives_the_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'face2vec\[export\]'"):
        save_table(tmp_path / "faces.parquet", [], fake_fingerprint(DIMENSION))
    assert list(tmp_path.iterdir()) == []
