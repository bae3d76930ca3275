"""The formats of tables of faces, chosen by suffix: Parquet, CSV, NumPy's npz and JSON lines."""

from __future__ import annotations

import csv
import importlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import MissingExtraError, SettingsError
from face2vec.exchange.table import (
    BOX,
    COLUMNS,
    EMBEDDING,
    LANDMARKS,
    PARTS,
    TRACK,
    Kind,
    Table,
)
from face2vec.files import expanded, text_of, write_json, writing
from face2vec.fingerprint import Fingerprint
from face2vec.report.matches import LANDMARK_NAMES

FINGERPRINT = "face2vec"
"""The key under which a Parquet or npz file has the fingerprint of its embeddings."""
ROWS = 4096  # of a row group, or read at a time


class TableFormat(Protocol):
    """A format of tables of faces.

    Attributes:
        keeps_fingerprint: whether a file has the fingerprint inside; otherwise it is beside it.
    """

    keeps_fingerprint: bool

    def write(self, file: Path, tables: Iterable[Table], made_with: Fingerprint) -> None:
        """Write parts of a table to a new file."""
        ...

    def read(self, file: Path) -> tuple[Table, str | None]:
        """The whole table, and the fingerprint as JSON if it is inside.

        Raises:
            ValueError: the file has another form; the message says what is wrong.
        """
        ...


def save_table(
    path: str | os.PathLike[str], tables: Iterable[Table], made_with: Fingerprint
) -> None:
    """Write a table of faces, atomically, in the format that its suffix names.

    Args:
        path: the file. A .csv or .jsonl file gets a second file ``<stem>.model.json`` beside it
            with the fingerprint of the embeddings; the other formats have it inside.
        tables: parts of the table, in order.
        made_with: the fingerprint of the embeddings.

    Raises:
        SettingsError: the suffix is unknown.
        MissingExtraError: the format needs a package that is not installed.
        NotWrittenError: the file cannot be written.
    """
    file = Path(expanded(path))
    form = format_of(file, ".coco.json")
    new = file.with_name(f"{file.name}.new")
    with writing(file):
        try:
            form.write(new, tables, made_with)
            new.replace(file)
        finally:
            new.unlink(missing_ok=True)
    if not form.keeps_fingerprint:
        write_json(beside(file), made_with.to_dict())


def load_table(path: str | os.PathLike[str]) -> tuple[Table, Fingerprint | None]:
    """Read a table of faces.

    Returns:
        The table, and the fingerprint of its embeddings, inside it or beside it, or None.

    Raises:
        SettingsError: the suffix is unknown, or the file cannot be read or has another form.
        MissingExtraError: the format needs a package that is not installed.
    """
    file = Path(expanded(path))
    form = format_of(file)
    try:
        table, inside = form.read(file)
        if inside is None and beside(file).is_file():
            inside = text_of(beside(file))
        made_with = None if inside is None else Fingerprint.from_json(inside)
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}; check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{file} is not a table of faces: {error}; it needs an embedding for each face"
        ) from error
    return table, made_with


def beside(file: Path) -> Path:
    """The file with the fingerprint of the embeddings in a file."""
    return file.with_name(f"{file.stem}.model.json")


def format_of(file: Path, *others: str) -> TableFormat:
    """The format that the suffix of a file names.

    Args:
        file: the file.
        others: suffixes that the message names besides.

    Raises:
        SettingsError: it names none.
    """
    try:
        return FORMATS[file.suffix.lower()]
    except KeyError as error:
        suffixes = ", ".join([*FORMATS, *others])
        raise SettingsError(
            f"{file} must end in one of {suffixes}; the suffix decides the format"
        ) from error


# --- JSON lines -------------------------------------------------------------------------------


class JsonLines:
    """One JSON object for each face, with the names and the nesting of ``search --json``."""

    keeps_fingerprint = False

    def write(self, file: Path, tables: Iterable[Table], made_with: Fingerprint) -> None:
        """Write one line for each face."""
        with file.open("w", encoding="ascii", newline="\n") as stream:
            for table in tables:
                for place, row in enumerate(table.embeddings):
                    flat = {name: values[place] for name, values in table.columns.items()}
                    stream.write(json_with(_nested(flat), row) + "\n")

    def read(self, file: Path) -> tuple[Table, str | None]:
        """Read a file; lines may lack anything but the embedding."""
        flats: list[dict[str, Any]] = []
        embeddings: list[NDArray[np.float32] | None] = []
        for number, line in enumerate(text_of(file).splitlines(), 1):
            if line.strip():
                try:
                    nested = json.loads(line)
                    embedding = nested.pop(EMBEDDING)
                    is_marked = embedding is None and nested.get("mark") is not None
                    embeddings.append(None if is_marked else np.array(embedding, np.float32))
                    flats.append(_flat(nested))
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise ValueError(f"line {number}: {error!r}") from error
        columns = {
            name: [flat.get(name) for flat in flats]
            for name in COLUMNS
            if any(name in flat for flat in flats)
        }
        return Table(columns, _stacked(embeddings)), None


def json_with(values: dict[str, Any], embedding: NDArray[np.float32]) -> str:
    """JSON of values and an embedding float32 (d,) on one line.

    The numbers of the embedding have the fewest digits that give the same float32. One of NaN is
    null.
    """
    numbers = ", ".join(embedding.astype(np.float32).astype(str).tolist())
    shown = "null" if np.isnan(embedding).all() else f"[{numbers}]"
    start = json.dumps(values)[:-1]
    return f'{start}{", " if values else ""}"{EMBEDDING}": {shown}}}'


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    def those(names: Sequence[str], keys: Sequence[str]) -> dict[str, Any] | None:
        values = [flat[name] for name in names]
        return None if None in values else dict(zip(keys, values, strict=True))

    points = [
        None if flat[f"{n}_x"] is None else [flat[f"{n}_x"], flat[f"{n}_y"]] for n in LANDMARK_NAMES
    ]
    box = [flat[name] for name in BOX]
    grouped = {
        BOX[0]: ("box", None if None in box else box),
        LANDMARKS[0]: (
            "landmarks",
            None if None in points else dict(zip(LANDMARK_NAMES, points, strict=True)),
        ),
        TRACK[0]: ("track", None if flat["time"] is None else [flat[name] for name in TRACK]),
        PARTS[0]: ("parts", those(PARTS, [name.removeprefix("part_") for name in PARTS])),
    }
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        if name in grouped:
            nested.update([grouped[name]])
        elif name not in (*BOX, *LANDMARKS, *PARTS, *TRACK):
            nested[name] = value
    return nested


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    flat = {name: nested[name] for name in COLUMNS if name in nested}
    if nested.get("box") is not None:
        flat.update(zip(BOX, nested["box"], strict=True))
    if nested.get("track") is not None:
        flat.update(zip(TRACK, nested["track"], strict=True))
    for name, (x, y) in (nested.get("landmarks") or {}).items():
        flat[f"{name}_x"], flat[f"{name}_y"] = x, y
    for name, value in (nested.get("parts") or {}).items():
        flat[f"part_{name}"] = value
    return flat


# --- CSV --------------------------------------------------------------------------------------


class Csv:
    """A header and one row for each face; the embedding is in columns ``embedding_0`` and so on."""

    keeps_fingerprint = False

    def write(self, file: Path, tables: Iterable[Table], made_with: Fingerprint) -> None:
        """Write a header and one row for each face; unknown values are empty."""
        dimension = made_with.model.dimension
        with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            rows = csv.writer(stream, lineterminator="\n")
            rows.writerow([*COLUMNS, *(f"{EMBEDDING}_{n}" for n in range(dimension))])
            for table in tables:
                cells = [
                    [_cell(kind, value) for value in table.values(name)]
                    for name, kind in COLUMNS.items()
                ]
                for *row, embedding in zip(*cells, table.embeddings, strict=True):
                    none = np.isnan(embedding).all()
                    numbers = [""] * dimension if none else embedding.astype(str).tolist()
                    rows.writerow([*row, *numbers])

    def read(self, file: Path) -> tuple[Table, str | None]:
        """Read a file; it may lack any column but those of the embedding."""
        csv.field_size_limit(1 << 24)
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            rows = csv.reader(stream)
            header = next(rows, [])
            places = {name: place for place, name in enumerate(header)}
            known = [name for name in COLUMNS if name in places]
            numbers = [places[n] for n in _embedding_columns(header)]
            columns: dict[str, list[Any]] = {name: [] for name in known}
            embeddings: list[NDArray[np.float32] | None] = []
            for row in rows:
                try:
                    for name in known:
                        columns[name].append(_of_cell(COLUMNS[name], row[places[name]]))
                    cells = [row[n] for n in numbers]
                    is_marked = not any(cells) and columns.get("mark", [None])[-1] is not None
                    embeddings.append(None if is_marked else np.array(cells, np.float32))
                except (IndexError, ValueError) as error:
                    raise ValueError(f"line {rows.line_num}: {error}") from error
        return Table(columns, _stacked(embeddings)), None


def _embedding_columns(header: Sequence[str]) -> list[str]:
    found = [f"{EMBEDDING}_{n}" for n in range(len(header)) if f"{EMBEDDING}_{n}" in header]
    if not found:
        raise ValueError(f"there is no column {EMBEDDING}_0")
    return found


def _cell(kind: Kind, value: Any) -> Any:
    if value is None:
        return ""
    return json.dumps(value) if kind == "texts" else str(value).lower() if kind == "flag" else value


def _of_cell(kind: Kind, text: str) -> Any:
    if kind in ("texts", "flag"):
        return json.loads(text) if text else None
    if not text:
        return None
    return text if kind == "text" else int(text) if kind == "whole" else float(text)


# --- npz --------------------------------------------------------------------------------------


class Npz:
    """One array for each column, without pickled objects.

    Unknown numbers are NaN, unknown whole numbers and flags -1, unknown texts empty; a list of
    texts is the text of its JSON.
    """

    keeps_fingerprint = True

    def write(self, file: Path, tables: Iterable[Table], made_with: Fingerprint) -> None:
        """Write all columns; the table is held in memory."""
        parts = list(tables)
        arrays: dict[str, NDArray[Any]] = {
            name: _array(kind, [value for table in parts for value in table.values(name)])
            for name, kind in COLUMNS.items()
        }
        empty = np.empty((0, made_with.model.dimension), np.float32)
        arrays[EMBEDDING] = np.concatenate([empty, *(table.embeddings for table in parts)])
        arrays[FINGERPRINT] = np.array(made_with.to_json())
        with file.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    def read(self, file: Path) -> tuple[Table, str | None]:
        """Read a file; it may lack any array but ``embedding``."""
        with np.load(file, allow_pickle=False) as stored:
            if EMBEDDING not in stored:
                raise ValueError(f"there is no array {EMBEDDING!r}")
            embeddings = stored[EMBEDDING].astype(np.float32)
            columns = {
                name: [_value(kind, value) for value in stored[name].tolist()]
                for name, kind in COLUMNS.items()
                if name in stored
            }
            made_with = str(stored[FINGERPRINT]) if FINGERPRINT in stored else None
        for name, values in columns.items():
            if len(values) != len(embeddings):
                raise ValueError(f"{name} has {len(values)} values for {len(embeddings)} faces")
        return Table(columns, embeddings), made_with


def _array(kind: Kind, values: list[Any]) -> NDArray[Any]:
    if kind == "number":
        return np.array([math.nan if value is None else value for value in values], np.float64)
    if kind in ("whole", "flag"):
        return np.array([-1 if value is None else value for value in values], np.int64)
    texts = [
        json.dumps(value) if kind == "texts" and value is not None else value or ""
        for value in values
    ]
    return np.array(texts, np.str_)


def _value(kind: Kind, value: Any) -> Any:
    if kind == "number":
        return None if math.isnan(value) else value
    if kind in ("whole", "flag"):
        return None if value < 0 else bool(value) if kind == "flag" else value
    if not value:
        return None
    return json.loads(value) if kind == "texts" else value


# --- Parquet ----------------------------------------------------------------------------------


class Parquet:
    """An Apache Parquet file; the embedding is a list of numbers. Needs ``face2vec[export]``.

    A text that is not valid Unicode, such as a file name of other bytes, is escaped by
    backslashes.
    """

    keeps_fingerprint = True

    def write(self, file: Path, tables: Iterable[Table], made_with: Fingerprint) -> None:
        """Write one row group for each part."""
        arrow, parquet = _arrow()
        types = {
            "whole": arrow.int64(),
            "number": arrow.float64(),
            "text": arrow.string(),
            "texts": arrow.list_(arrow.string()),
            "flag": arrow.bool_(),
        }
        dimension = made_with.model.dimension
        vector = arrow.list_(arrow.float32(), dimension)
        schema = arrow.schema(
            [*((name, types[kind]) for name, kind in COLUMNS.items()), (EMBEDDING, vector)],
            metadata={FINGERPRINT: made_with.to_json()},
        )
        with parquet.ParquetWriter(file, schema) as writer:
            for table in tables:
                columns = [
                    arrow.array([_valid(value) for value in table.values(name)], types[kind])
                    for name, kind in COLUMNS.items()
                ]
                flat = arrow.array(table.embeddings.ravel(), arrow.float32())
                none = arrow.array(np.isnan(table.embeddings).all(axis=1))
                columns.append(arrow.FixedSizeListArray.from_arrays(flat, dimension, mask=none))
                writer.write_table(arrow.Table.from_arrays(columns, schema=schema))

    def read(self, file: Path) -> tuple[Table, str | None]:
        """Read a file; it may lack any column but ``embedding``."""
        arrow, parquet = _arrow()
        try:
            stored = parquet.read_table(file)
        except arrow.ArrowInvalid as error:
            raise ValueError(str(error)) from error
        if EMBEDDING not in stored.column_names:
            raise ValueError(f"there is no column {EMBEDDING!r}")
        columns = {
            name: stored.column(name).to_pylist() for name in COLUMNS if name in stored.column_names
        }
        lists = stored.column(EMBEDDING).combine_chunks()
        lengths = lists.value_lengths().to_pylist() if stored.num_rows else []
        marks = columns.get("mark", [None] * len(lengths))
        there = [
            length is not None or mark is None for length, mark in zip(lengths, marks, strict=True)
        ]
        known = {length for length, is_there in zip(lengths, there, strict=True) if is_there}
        if len(known) > 1 or None in known:
            raise ValueError("embeddings have different lengths")
        dimension = next(iter(known), 0)
        flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        embeddings = np.full((len(there), dimension), np.nan, np.float32)
        embeddings[there] = flat.reshape(-1, dimension) if dimension else flat.reshape(0, 0)
        inside = (stored.schema.metadata or {}).get(FINGERPRINT.encode())
        return Table(columns, embeddings), None if inside is None else inside.decode()


def _valid(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return [_valid(one) for one in value] if isinstance(value, list) else value


def _arrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError("a Parquet file", "pyarrow", "export") from error


FORMATS: dict[str, TableFormat] = {
    ".parquet": Parquet(),
    ".csv": Csv(),
    ".npz": Npz(),
    ".jsonl": JsonLines(),
}
"""The formats by suffix."""


def _stacked(embeddings: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32]:
    """Embeddings as rows; NaN in place of None."""
    known = [row for row in embeddings if row is not None]
    if len({row.shape for row in known}) > 1 or (known and known[0].ndim != 1):
        raise ValueError("embeddings have different lengths")
    none = np.full(known[0].shape if known else 0, np.nan, np.float32)
    rows = [none if row is None else row for row in embeddings]
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)


def batches(count: int, size: int = ROWS) -> Iterator[slice]:
    """Slices of ``size`` rows that cover a table of ``count`` rows."""
    return (slice(start, start + size) for start in range(0, count, size))
