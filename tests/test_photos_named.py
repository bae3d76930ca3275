"""Photos with the names of people: folders, tables, mappings."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from face2vec.errors import SettingsError
from face2vec.photos.named import named_photos


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Two people with a folder each, one with a subfolder, and a photo of nobody."""
    folder = tmp_path / "people"
    for name in ("Ada/1.jpg", "Ada/more/2.jpg", "Grace/1.jpg", "nobody.jpg", "Ada/notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\xff\xd8\xff")
    return folder


def found(people: object, folder: Path) -> list[tuple[str, str]]:
    return [
        (name, photo.full.relative_to(folder.resolve()).as_posix())
        for name, photo in named_photos(people)  # type: ignore[arg-type]
    ]


def test_folder_names_the_person_of_each_photo(people: Path) -> None:
    assert found(people, people) == [
        ("Ada", "Ada/1.jpg"),
        ("Ada", "Ada/more/2.jpg"),
        ("Grace", "Grace/1.jpg"),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_table_names_photos_relative_to_itself(people: Path, delimiter: str, encoding: str) -> None:
    rows = (("Photo", "year", "Name"), ("Grace/1.jpg", "1952", " José "), ("Ada", "1843", "Ada"))
    text = "\r\n".join(map(delimiter.join, rows)) + "\r\n\r\n"
    (people / "table.csv").write_text(text, encoding=encoding, newline="")
    assert found(people / "table.csv", people) == [
        ("José", "Grace/1.jpg"),
        ("Ada", "Ada/1.jpg"),
        ("Ada", "Ada/more/2.jpg"),
    ]


def test_names_of_a_mapping_in_two_normal_forms_are_one(people: Path) -> None:
    photos = {
        unicodedata.normalize("NFC", "José"): str(people / "Ada"),
        unicodedata.normalize("NFD", "José"): [people / "Grace" / "1.jpg", people / "Ada/1.jpg"],
    }
    assert found(photos, people) == [
        ("José", "Ada/1.jpg"),
        ("José", "Ada/more/2.jpg"),
        ("José", "Grace/1.jpg"),
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("who,photo\nAda,Ada/1.jpg\n", r"has the columns who, photo; .* needs the columns name"),
        ("", "has the columns of an empty file"),
        ("name,photo\nAda,Ada/1.jpg\nAda,gone.jpg\n", r"line 3: there is no photo .*gone\.jpg"),
        ("name,photo\n,Ada/1.jpg\n", "line 2: a name or a photo is missing"),
        ("name,photo\nAda\n", "line 2: a name or a photo is missing"),
        ("name,photo\n", "there is no photo of a person in"),
        ("name,photo\nAda,Ada/1.jpg\nBen,Ada\n", r"1\.jpg is given as a photo of 'Ada' and of 'Be"),
    ],
)
def test_wrong_table_is_one_error_that_names_the_place(
    people: Path, table: str, message: str
) -> None:
    (people / "table.csv").write_text(table, encoding="utf-8")
    with pytest.raises(SettingsError, match=message):
        named_photos(people / "table.csv")


def test_what_is_no_people_is_refused(people: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*gone.*; give a folder with a folder"):
        named_photos(people / "gone")
    with pytest.raises(SettingsError, match="people must be a path, not 3"):
        named_photos(3)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="a name must be text, not 3"):
        named_photos({3: people})  # type: ignore[dict-item]
    with pytest.raises(SettingsError, match="there is no photo of a person"):
        named_photos(people / "Grace")
