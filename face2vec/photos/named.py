"""Reads which photos show which person: a folder per person, a CSV table, or a mapping."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from face2vec.arguments import path as checked_path
from face2vec.arguments import refusal
from face2vec.errors import SettingsError
from face2vec.files import composed, expanded, is_object, text_of
from face2vec.photos.allowed import allow
from face2vec.photos.discover import FoundPhoto, Source, find_photos, paths_of
from face2vec.photos.extras import VIDEO, kind_by_name

Named = tuple[str, FoundPhoto]
"""The name of a person, and a photo of that person."""

NAME, PHOTO = "name", "photo"
"""The columns of a table."""

_DELIMITERS = ",;\t"


def named_photos(people: Source | Mapping[str, Source | Iterable[Source]]) -> list[Named]:
    """Photos with the name of the person whom each shows, each photo once. Videos are left out.

    Addresses that are given may be read from then on; those in a table must be allowed already.

    Args:
        people: one of

            - a folder with a folder of photos for each person, whose name is the person's; a photo
              that is in none of them is left out;
            - a table: a CSV file with the columns ``name`` and ``photo``, separated by commas,
              semicolons or tabs. Photos are relative to the folder of the file; a folder stands
              for its photos;
            - a mapping of names to photos, or to lists of photos, as `find_photos` takes them.

    Raises:
        SettingsError: it is something else; there is no photo of a person; a row of the table has
            no name, or names a photo that does not exist; or a photo has two names.
    """
    if isinstance(people, Mapping):
        found = _of_mapping(people)
    else:
        place = expanded(checked_path("people", people))
        allow([place])
        is_folder = is_object(place) or Path(place).is_dir()
        found = _of_folder(place) if is_folder else _of_table(Path(place))
    names: dict[str, str] = {}
    photos: list[Named] = []
    for name, photo in found:
        if kind_by_name(photo.name) == VIDEO:
            continue
        name, full = composed(name.strip()), photo.place
        known = names.setdefault(full, name)
        if known != name:
            raise SettingsError(
                f"{full} is given as a photo of {known!r} and of {name!r}; only the largest face "
                "of a photo gets a name, so give it once; other faces are named by number: "
                "face2vec name GALLERY FACE NAME --face"
            )
        photos.append((name, photo))
    if not photos:
        raise SettingsError(
            f"there is no photo of a person in {people!r}; give a folder with a folder of photos "
            "for each person, or a CSV file with the columns name and photo"
        )
    return list({photo.place: (name, photo) for name, photo in photos}.values())


def _of_mapping(people: Mapping[str, Source | Iterable[Source]]) -> Iterator[Named]:
    for name, sources in people.items():
        if not isinstance(name, str):
            raise refusal("a name", name, "text")
        allow(paths_of(sources))
        yield from ((name, photo) for photo in find_photos(sources))


def _of_folder(folder: str) -> Iterator[Named]:
    for photo in find_photos(folder):
        name, inside, _ = photo.name.partition(os.sep)
        if inside:
            yield name, photo


def _of_table(file: Path) -> Iterator[Named]:
    try:
        lines = text_of(file).splitlines()
    except OSError as error:
        raise SettingsError(
            f"cannot read {str(file)!r}: {error.strerror}; give a folder with a folder of photos "
            "for each person, or a CSV file with the columns name and photo"
        ) from error
    header = next(iter(lines), "")
    delimiter = max(_DELIMITERS, key=header.count)
    table = csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True)
    columns = {column.strip().casefold(): column for column in table.fieldnames or ()}
    if not {NAME, PHOTO} <= columns.keys():
        raise SettingsError(
            f"{file} has the columns {', '.join(columns) or 'of an empty file'}; a table of people "
            "needs the columns name and photo in its first line"
        )
    for row in table:
        name, photo = ((row[columns[column]] or "").strip() for column in (NAME, PHOTO))
        if not name and not photo:
            continue
        place = expanded(photo)
        if not is_object(place):
            place = str(file.parent / place)
        if not name or not photo or not (is_object(place) or os.path.exists(place)):  # noqa: PTH110
            what = (
                f"there is no photo {place}" if name and photo else "a name or a photo is missing"
            )
            raise SettingsError(f"{file}, line {table.line_num}: {what}; correct the line")
        yield from ((name, found) for found in find_photos(place))
