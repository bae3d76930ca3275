"""``face2vec people`` and what can be said of them: names, who is who, who is to be forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from face2vec.cli.common import Number
from face2vec.errors import PhotoError
from face2vec.report.html import printable

if TYPE_CHECKING:
    from face2vec.engine import Face2Vec
    from face2vec.types import Identified, Person

KNOWN, SOMEBODY_UNKNOWN, LEFT, ERROR = 0, 1, 1, 3

Command = TypeVar("Command", bound=Callable[..., Any])

_gallery = click.argument("gallery", type=click.Path(path_type=Path))
_person = click.argument("person")
_faces = click.argument(
    "faces", type=click.IntRange(1, 2**63 - 1), nargs=-1, required=True, metavar="FACE..."
)


@click.command("people")
@_gallery
@click.option("--again", is_flag=True,
              help="Group all faces anew but those of which you said who they are.")  # fmt: skip
@click.option("--most", type=click.IntRange(min=1), default=50, show_default=True,
              help="People shown, those with most faces first; --json gives all.")  # fmt: skip
@click.option("--html", "page", type=click.Path(dir_okay=False), help="Write a page with them.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON a person on stdout.")
def people_command(gallery: Path, again: bool, most: int, page: str | None, as_json: bool) -> None:
    """Find out who is who in GALLERY, and list them.

    Faces that came since the last time join those they are like, or each other. Numbers,
    names and all that was said stay.
    """
    with _opened(gallery) as engine:
        found = engine.find_people(again=again)
        people = [person for person in engine.people() if person.faces or person.name]
        if as_json:
            for person in people:
                click.echo(json.dumps(_facts(person, engine)))
        else:
            for person in people[:most]:
                count = len(person.faces)
                name = "" if person.name is None else f"  {printable(person.name)}"
                click.echo(f"{person.id:>6}  {count:>6,} face{'s' if count != 1 else ' '}{name}")
            if len(people) > most:
                click.echo(f"… {len(people) - most:,} more")
        if page is not None:
            from face2vec.people.page import save_people

            save_people(people[:most], engine.faces_of, page)
    click.echo(
        f"{found.people:,} people, {found.new:,} of them new; {found.joined:,} faces joined "
        f"somebody known, {found.alone:,} are like no other"
        + (f", {found.doubtful:,} may be no faces and were left out" if found.doubtful else ""),
        err=True,
    )


@click.command("name")
@_gallery
@_person
@click.argument("name", required=False)
def name_command(gallery: Path, person: str, name: str | None) -> None:
    """Call PERSON in GALLERY by NAME; without one the name is taken away."""
    with _opened(gallery) as engine:
        named = engine.name(person, name)
    click.echo(f"person {named.id} is {printable(named.label)}", err=True)


@click.command("merge")
@_gallery
@_person
@click.argument("others", nargs=-1, required=True, metavar="OTHER...")
def merge_command(gallery: Path, person: str, others: tuple[str, ...]) -> None:
    """Say that OTHERs are the same as PERSON in GALLERY."""
    with _opened(gallery) as engine:
        merged = engine.merge(person, *others)
    _say_faces(merged)


@click.command("split")
@_gallery
@_person
@_faces
def split_command(gallery: Path, person: str, faces: tuple[int, ...]) -> None:
    """Make a new person of some FACEs of PERSON in GALLERY."""
    with _opened(gallery) as engine:
        new = engine.split(person, *faces)
    _say_faces(new)


@click.command("this-person")
@_gallery
@_person
@_faces
def this_person_command(gallery: Path, person: str, faces: tuple[int, ...]) -> None:
    """Say that FACEs in GALLERY are of PERSON."""
    with _opened(gallery) as engine:
        known = engine.this_person(person, *faces)
    _say_faces(known)


@click.command("not-this-person")
@_gallery
@_person
@_faces
def not_this_person_command(gallery: Path, person: str, faces: tuple[int, ...]) -> None:
    """Say that FACEs in GALLERY are not of PERSON."""
    with _opened(gallery) as engine:
        left = engine.not_this_person(person, *faces)
    _say_faces(left)


@click.command("undo")
@_gallery
def undo_command(gallery: Path) -> None:
    """Take back what was said last of people in GALLERY; again and again, all of it."""
    with _opened(gallery) as engine:
        what = engine.undo()
    click.echo(f"taken back: {what}", err=True)


@click.command("identify")
@_gallery
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@click.option("--at-least", type=Number(0, 1), default=0.5, show_default=True,
              help="How likely somebody has to be to be named.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="A line of JSON a face on stdout.")
@click.pass_context
def identify_command(
    ctx: click.Context, gallery: Path, photos: tuple[str, ...], at_least: float, as_json: bool
) -> None:
    """Say who each face in each PHOTO is, out of those in GALLERY who have a name.

    Exit code 0 where every face is somebody known, 1 where one is not or there is none.
    """
    unreadable, unknown = False, False
    with _opened(gallery) as engine:
        for photo in photos:
            try:
                found = engine.identify(photo, at_least=at_least)
            except PhotoError as error:
                click.echo(f"face2vec: {printable(str(error))}", err=True)
                unreadable = True
                continue
            if not found:
                click.echo(f"{printable(photo)}: no face found", err=True)
            unknown |= not found or any(one.person is None for one in found)
            for one in found:
                click.echo(json.dumps(_who(photo, one)) if as_json else _words(photo, one))
    if unreadable:
        ctx.exit(ERROR)
    ctx.exit(SOMEBODY_UNKNOWN if unknown else KNOWN)


@click.command("forget")
@_gallery
@_person
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def forget_command(ctx: click.Context, gallery: Path, person: str, yes: bool) -> None:
    """Delete PERSON from GALLERY for good: faces, embeddings, name.

    Photos that show nobody else leave the gallery, and only their SHA-256 is kept, so that
    they are not taken in again. The files of the photos stay where they are. Exit code 1
    where something is left in the gallery's files.
    """
    with _opened(gallery) as engine:
        known = engine.person(person)
        if not yes:
            click.confirm(
                f"Forget {printable(known.label)} with {len(known.faces):,} faces for good?",
                abort=True, err=True,
            )  # fmt: skip
        done = engine.forget(known)
    click.echo(f"{done.faces:,} faces and {done.photos:,} photos deleted", err=True)
    for left in done.left:
        click.echo(left)
    click.echo(
        "their embeddings, landmarks and name were looked for in every file of the gallery: "
        + (f"{len(done.left)} found" if done.left else "nothing is left"),
        err=True,
    )
    ctx.exit(LEFT if done.left else KNOWN)


PEOPLE_COMMANDS = (
    people_command,
    name_command,
    merge_command,
    split_command,
    this_person_command,
    not_this_person_command,
    undo_command,
    identify_command,
    forget_command,
)


def _opened(gallery: Path) -> Face2Vec:
    from face2vec.engine import Face2Vec

    return Face2Vec(gallery)


def _facts(person: Person, engine: Face2Vec) -> dict[str, Any]:
    faces = [
        {"face": one.face.id, "photo": one.photo, "box": [float(v) for v in one.face.box]}
        for one in engine.faces_of(person)
    ]
    return {"person": person.id, "name": person.name, "faces": faces}


def _say_faces(person: Person) -> None:
    click.echo(f"{printable(person.label)} has {len(person.faces):,} faces now", err=True)


def _words(photo: str, one: Identified) -> str:
    left, top, right, bottom = (round(v) for v in one.face.box)
    return (
        f"{printable(photo)}, face at ({left}, {top}, {right}, {bottom}): "
        f"{printable(one.label)}, {one.probability:.1%}"
    )


def _who(photo: str, one: Identified) -> dict[str, Any]:
    return {
        "photo": photo,
        "box": [float(v) for v in one.face.box],
        "person": None if one.person is None else one.person.id,
        "name": None if one.person is None else one.person.name,
        "probability": one.probability,
        "candidates": [
            {"person": p.id, "name": p.name, "probability": share} for p, share in one.candidates
        ],
    }
