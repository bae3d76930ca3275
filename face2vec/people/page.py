"""An HTML page with the people of a gallery."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from face2vec.gallery.rows import StoredFace
from face2vec.report.html import img, photo_link, write_page
from face2vec.report.text import printable
from face2vec.report.thumbnails import thumbnail
from face2vec.types import Person

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 12
"""Largest number of faces shown per person, evenly spaced."""


def save_people(
    people: Sequence[Person],
    faces_of: Callable[[Person], Sequence[StoredFace]],
    path: str | os.PathLike[str],
) -> None:
    """Write one self-contained page with the name, number, faces and photos of each person.

    Args:
        people: the people in order of display.
        faces_of: returns the faces of a person, with their photos.
        path: path of the page.
    """
    sections = "\n".join(_section(person, faces_of(person)) for person in people)
    count = "1 person" if len(people) == 1 else f"{len(people):,} people"
    write_page(
        path,
        "People",
        f"<p>{count}. The number under a face is its id for split and not-this-person.</p>\n"
        + sections,
    )


def _section(person: Person, faces: Sequence[StoredFace]) -> str:
    label = html.escape(printable(person.label))
    step = max(len(faces) / SHOWN, 1.0)
    shown = [faces[int(n * step)] for n in range(min(SHOWN, len(faces)))]
    cells = "".join(
        f'<figure style="display:inline-block;margin:.3rem">'
        f"{img(_picture(one), f'Face {one.face.id} of {label}')}"
        f"<figcaption>{one.face.id}</figcaption></figure>"
        for one in shown
    )
    places = dict.fromkeys((one.photo, one.face.time) for one in faces)
    photos = "<br>".join(photo_link(*place) for place in places)
    number = "" if person.name is None else f", person {person.id}"
    faces_word = "1 face" if len(faces) == 1 else f"{len(faces):,} faces"
    if len(shown) < len(faces):
        faces_word += f", {len(shown)} of them shown"
    return (
        f'<section aria-labelledby="person-{person.id}">\n'
        f'<h2 id="person-{person.id}"><bdi>{label}</bdi></h2>\n<p>{faces_word}{number}</p>\n'
        f"<div>{cells}</div>\n<details><summary>Photos</summary><p>{photos}</p></details>\n"
        "</section>"
    )


def _picture(one: StoredFace) -> Image.Image:
    return thumbnail(one.photo, one.face.box, time=one.face.time)
