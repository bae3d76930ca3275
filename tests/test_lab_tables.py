"""Tables of photos: reading, grouping of values, errors, and slices."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from face2vec import Face2Vec, samples
from face2vec.errors import SettingsError
from face2vec.evaluation.metrics import all_pairs
from face2vec.lab.rates import Draws, counted, threshold_for
from face2vec.lab.tables import EMPTY, read_table, slices_of

PEOPLE, PHOTOS = 5, 3


def written(file: Path, columns: list[str], rows: list[list[str]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return file


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    rows = []
    for person in samples.people(PEOPLE, seed=6):
        for number in range(PHOTOS):
            name = f"{person.name}-{number}.jpg"
            person.photo(number).save(folder / "images" / name)
            rows.append([name, person.name, "woman" if person.female else "man",
                         str(round(person.age)), f"note {len(rows)}"])  # fmt: skip
    return written(folder / "table.csv", ["file", "person", "sex", "age", "note"], rows)


def test_read_table_finds_photos_and_leaves_out_text_columns(drawn: Path) -> None:
    table = read_table(drawn)
    assert list(table.people)[:2] == [
        drawn.parent / "images" / f"person-000-{number}.jpg" for number in range(2)
    ]
    assert set(table.people.values()) == {f"person-{number:03d}" for number in range(PEOPLE)}
    assert list(table.attributes) == ["sex", "age"]
    assert table.left_out == ("note",)
    assert list(read_table(drawn, ["sex"]).attributes) == ["sex"]


def test_names_and_values_in_two_normal_forms_are_one(tmp_path: Path) -> None:
    jose, benin = (
        [unicodedata.normalize(form, text) for form in ("NFC", "NFD")] for text in ("José", "Bénin")
    )
    rows = []
    for number in range(2):
        (tmp_path / f"{number}.jpg").touch()
        rows.append([f"{number}.jpg", jose[number], benin[number]])
    table = read_table(written(tmp_path / "t.csv", ["photo", "person", "origin"], rows))
    assert list(table.people.values()) == [jose[0], jose[0]]
    assert table.attributes == {"origin": [benin[0], benin[0]]}


def test_many_numbers_are_divided_into_quarters(tmp_path: Path) -> None:
    ages = [str(age) for age in range(1, 41)]
    ages[3] = ""
    rows = []
    for number, age in enumerate(ages):
        (tmp_path / f"{number}.jpg").touch()
        rows.append([f"{number}.jpg", "Ada", age])
    table = read_table(written(tmp_path / "t.csv", ["photo", "person", "age"], rows))
    values = table.attributes["age"]
    assert values[3] == EMPTY
    quarters = np.nanquantile([float(age) if age else np.nan for age in ages], [0.25, 0.5, 0.75])
    lowest = [value for age, value in zip(ages, values, strict=True)
              if age and float(age) < quarters[0]]  # fmt: skip
    assert set(lowest) == {f"1 to {quarters[0]:g}"}
    sizes = [values.count(value) for value in dict.fromkeys(values) if value != EMPTY]
    assert sizes == [10, 9, 10, 10] or sorted(sizes) == [9, 10, 10, 10]


def test_invalid_tables_are_refused(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="has no attribute hat; it has sex, age, note"):
        read_table(drawn, ["hat"])
    with pytest.raises(SettingsError, match="column photo or file, and a column person; it has a"):
        read_table(written(tmp_path / "t.csv", ["a"], []))
    with pytest.raises(SettingsError, match=r"row 2: there is no photo .*x\.jpg"):
        read_table(written(tmp_path / "t.csv", ["file", "person"], [["x.jpg", "Ada"]]))
    (tmp_path / "x.jpg").touch()
    with pytest.raises(SettingsError, match=r"row 3: .*x\.jpg is listed twice"):
        read_table(written(tmp_path / "t.csv", ["file", "person"], [["x.jpg", "Ada"]] * 2))


def test_slices_are_measured_at_the_threshold_of_all_photos(drawn: Path, tiny_model: Path) -> None:
    table = read_table(drawn, ["sex"])
    with Face2Vec(model=tiny_model) as engine:
        measured = slices_of(table, engine, far=0.1)
        rows = np.stack([engine.encode(str(photo))[0].embedding for photo in table.people])  # type: ignore[misc]
    people = np.repeat(np.arange(PEOPLE), PHOTOS)
    pairs = all_pairs(rows, people)
    assert measured.threshold == pytest.approx(threshold_for(pairs.impostor, 0.1), abs=1e-6)
    assert measured.everybody.tar.value == pytest.approx(
        (pairs.genuine >= measured.threshold).mean()
    )
    women = np.array([value == "woman" for value in table.attributes["sex"]])
    assert {one.value: one.photos for one in measured.slices} == {
        "woman": women.sum(), "man": (~women).sum()
    }  # fmt: skip
    for one in measured.slices:
        some = women if one.value == "woman" else ~women
        counts = counted(rows, rows, people, measured.threshold, some)
        assert one.tar.value == pytest.approx(Draws(PEOPLE).tar(counts).value)
        assert one.remark == "too small"
    assert f"FAR 0.1 on {measured.impostor_pairs} impostor pairs" in measured.about
