"""Files that are written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from face2vec.files import json_line, write_json, written_whole


def test_file_stays_as_it_was_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "facts"
    path.write_text("old")

    def half(words: bytes) -> None:
        with written_whole(path) as stream:
            stream.write(words)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half(b"new")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["facts"]


def test_file_is_replaced_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "facts"
    path.write_text("old")
    with written_whole(path) as stream:
        stream.write(b"new")
        stream.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_json_reads_back_whatever_names_hold(tmp_path: Path) -> None:
    values = {"photo": "caf\udce9/ü.jpg", "rates": [0.5, None]}  # a name that is not UTF-8
    write_json(tmp_path / "figures.json", values)
    assert json.loads((tmp_path / "figures.json").read_text("utf-8")) == values


def test_json_has_null_for_what_is_not_a_number(tmp_path: Path) -> None:
    values = {"tar": float("nan"), "interval": (0.5, float("nan")), "people": [{"far": 0.0}]}
    wanted = {"tar": None, "interval": [0.5, None], "people": [{"far": 0.0}]}
    assert json_line(values) == json.dumps(wanted)
    write_json(tmp_path / "figures.json", values)
    assert json.loads((tmp_path / "figures.json").read_text("utf-8")) == wanted
