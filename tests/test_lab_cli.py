"""``face2vec lab`` on the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from face2vec import Face2Vec, samples
from face2vec.cli.main import main
from face2vec.lab.catalogue import chosen
from face2vec.lab.report import robustness_text
from face2vec.lab.robustness import robustness
from face2vec.lab.subjects import subjects_of
from face2vec.lab.tables import read_table, slices_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("people")
    rows = [["photo", "person", "sex"]]
    for person in samples.people(3, seed=4):
        for number in range(2):
            person.photo(number).save(place / person.name / f"{number}.jpg")
            rows.append([f"{person.name}/{number}.jpg", person.name, "fm"[person.female]])
    with (place / "table.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return place


def lab(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["lab", *map(str, words)])


def test_robustness_prints_figures_and_writes_a_page(
    folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with Face2Vec(model=tiny_model) as engine:
        subjects = subjects_of(folder, engine, people=3, photos=2)
        expected = robustness(subjects, engine, chosen(["mask"]), far=0.1)
    how = ("robustness", folder, "--model", tiny_model, "--only", "mask", "--far", "0.1",
           "--people", "3", "--photos", "2", "-q")  # fmt: skip
    done = lab(*how, "--out", tmp_path / "r")
    assert done.exit_code == 0, done.output
    assert done.stdout == robustness_text(expected) + "\n"
    assert str(tmp_path / "r" / "report.html") in done.stderr
    assert "The threshold rests on 1.2 of 12 impostor pairs" in done.stderr
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert f"<h1>What tiny sees in {folder.name}</h1>" in page
    assert json.loads(lab(*how, "--json").stdout) == expected.figures()


def test_slices_print_figures_and_warn(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    table = folder / "table.csv"
    with Face2Vec(model=tiny_model) as engine:
        expected = slices_of(read_table(table), engine, far=0.1)
    how = ("slices", table, "--model", tiny_model, "--far", "0.1")
    done = lab(*how, "--out", tmp_path / "r")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(expected.about)
    for one in expected.slices:
        assert f"sex {one.value}: too small" in done.stderr
    assert (tmp_path / "r" / "report.html").is_file()
    assert json.loads(lab(*how, "--json", "-q").stdout) == expected.figures()


def test_errors_are_printed_on_one_line(folder: Path, tiny_model: Path) -> None:
    done = lab("robustness", folder, "--only", "fog")
    assert done.exit_code == 3
    assert done.stderr.startswith("face2vec: there is no degradation fog; use any of rotation")
    done = lab("slices", folder / "table.csv", "--by", "hat")
    assert done.exit_code == 3
    assert "has no attribute hat; it has sex" in done.stderr
