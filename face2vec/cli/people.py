"""Commands about people: who is who, names, corrections, and who is to be forgotten."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from face2vec.cli.common import (
    FilePath,
    Number,
    Place,
    WrittenFile,
    count,
    gallery_argument,
    json_line_option,
    json_lines_option,
    model_option,
    opened,
    out,
    photos_argument,
    queries_argument,
    reasons,
    runtime_options,
    safe,
    say,
    say_error,
)
from face2vec.cli.exits import DONE, ERROR, INTERRUPTED, PARTLY
from face2vec.cluster.address import MilvusAddress
from face2vec.errors import NOT_WRITABLE, GalleryError, PhotoError
from face2vec.report.text import box_words, percent, printable
from face2vec.types import METHODS, Method

if TYPE_CHECKING:
    from face2vec.engine import Face2Vec
    from face2vec.types import Person, Side


class PersonName(click.ParamType):  # type: ignore[type-arg]
    """A name that can be shown as it is, as the pages take it."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, or a usage error."""
        if printable(value) != value:
            self.fail(
                "it has control characters, or characters that change the direction of text; type "
                "it again",
                param,
                ctx,
            )
        return str(value)


person_argument = click.argument("person")
faces_argument = click.argument(
    "faces", type=click.IntRange(1, 2**63 - 1), nargs=-1, required=True, metavar="FACE..."
)


@click.command("people")
@gallery_argument
@click.option(
    "--again", is_flag=True, help="Group all faces again except those that you have confirmed."
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="average",
    show_default=True,
    help="How to group. The others look at similarities alone; they are there to compare with.",
)
@click.option(
    "--count", "number", type=click.IntRange(min=1), help="Number of people, for k-means."
)
@click.option(
    "--most",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="People to list, those with most faces first; --json lists all.",
)
@click.option(
    "--suggest",
    is_flag=True,
    help="Group nothing; list pairs that may be one person, those that settle most first.",
)
@click.option("--html", "page", type=WrittenFile(), help="Write a page with them.")
@json_lines_option
def people_command(
    gallery: Place,
    again: bool,
    method: Method,
    number: int | None,
    most: int,
    suggest: bool,
    page: str | None,
    as_json: bool,
) -> None:
    """Group the faces of a gallery into people and list them.

    New faces join an existing person or form new ones. Numbers, names and corrections are kept.
    """
    if suggest:
        _suggest(gallery, most, as_json)
        return
    asked = again or method != METHODS[0] or number is not None
    with opened(gallery) as engine:
        found = None
        try:
            found = engine.find_people(again=again, method=method, count=number)
        except GalleryError as error:
            if asked or error.code != NOT_WRITABLE:
                raise
            say(f"new faces are not grouped: {error}")
        people = [person for person in engine.people() if person.faces or person.name]
        if as_json:
            for person in people:
                out(json.dumps(_facts(person, engine)))
        else:
            for person in people[:most]:
                out(f"{person.id:>6}  {count(len(person.faces), 'face'):>11}  {_name(person)}")
            if len(people) > most:
                out(f"… {len(people) - most:,} more")
        if page is not None:
            from face2vec.people.page import save_people

            save_people(people[:most], engine.faces_of, page)
    if found is None:
        return
    say(
        f"{count(found.people, 'person', 'people')}, {found.new:,} of them new; "
        f"{count(found.joined, 'face')} joined an existing person, {found.alone:,} without a "
        "similar face"
        + (f", {count(found.doubtful, 'doubtful detection')} left out" if found.doubtful else "")
    )


def _suggest(gallery: Place, most: int, as_json: bool) -> None:
    with opened(gallery) as engine:
        suggestions = engine.suggest(most)
    for one in suggestions:
        if as_json:
            out(json.dumps(asdict(one)))
            continue
        sides = " and ".join(map(_side, (one.first, one.second)))
        out(f"{percent(one.probability):>7}  {sides}")
    if suggestions:
        place = shlex.quote(str(gallery))
        say(
            f"Are they one person? face2vec merge {place} PERSON OTHER, or "
            f"face2vec this-person {place} PERSON FACE\n"
            f"Are they not? face2vec different {place} FACE FACE"
        )
    else:
        say("there is no pair that may be one person")


def _side(side: Side) -> str:
    shown = " and ".join(map(str, side.shown))
    if side.person is None:
        return f"face {shown}, nobody yet"
    name = f"person {side.person}" + ("" if side.name is None else f" ({printable(side.name)})")
    return f"{name}, {count(side.count, 'face')} such as {shown}"


@click.command("name")
@gallery_argument
@person_argument
@click.argument("name", type=PersonName(), required=False)
@click.option(
    "--face",
    "by_face",
    is_flag=True,
    help="PERSON is the number of a face: it shows the person with this name, or a new one.",
)
@click.option(
    "--mark",
    "by_mark",
    is_flag=True,
    help="PERSON is the number of a mark, see 'marks': it shows the person with this name, or a "
    "new one.",
)
def name_command(
    gallery: Place, person: str, name: str | None, by_face: bool, by_mark: bool
) -> None:
    """Give PERSON a name; without NAME remove the name."""
    if by_face and by_mark:
        raise click.UsageError("give --face or --mark, not both")
    with opened(gallery) as engine:
        if by_mark:
            if not person.isdecimal():
                raise click.UsageError("--mark needs the number of a mark")
            shown = engine.name_mark(int(person), name)
            say(f"mark {person}: {'nobody' if shown is None else printable(shown.label)}")
            return
        if not by_face:
            named = engine.name(person, name)
        elif name is not None and person.isdecimal():
            named = engine.name_face(int(person), name)
        else:
            raise click.UsageError("--face needs the number of a face and a name")
    say(f"person {named.id}: {_name(named)}")


@click.command("enroll")
@gallery_argument
@click.argument("people", type=FilePath(objects=True))
@model_option
@runtime_options
@json_line_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress bar and no summary.")
@click.pass_context
def enroll_command(
    ctx: click.Context,
    gallery: Place,
    people: str,
    model: str | None,
    runtime: str,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Add photos of people whose names are known, and name their faces.

    PEOPLE is a folder with a folder of photos for each person, or a CSV file with the columns name
    and photo. The largest sure face of each photo gets the name. 'undo' takes all names back.

    The exit code is 1 if a photo has no face for its name.
    """
    from face2vec.engine import Face2Vec

    with Face2Vec(gallery, model=model, runtime=runtime, threads=threads) as engine:
        done = engine.enroll(people, progress=not quiet)
    if as_json:
        out(json.dumps(done.to_dict()))
    if not quiet and not done.added.interrupted:
        say(f"{count(len(done.people), 'person', 'people')}, {count(len(done.faces), 'photo')}")
        if done.without:
            say(f"{count(len(done.without), 'photo')} without a face that could be named:")
            for line in reasons(done.without):
                say(line)
    if done.added.interrupted:
        say("Stopped; nobody was named. Run the same command again to continue.")
        ctx.exit(INTERRUPTED)
    ctx.exit(PARTLY if done.without else DONE)


@click.command("merge")
@gallery_argument
@person_argument
@click.argument("others", nargs=-1, required=True, metavar="OTHER...")
@click.option(
    "--keep-name", is_flag=True, help="PERSON keeps their name; other names of OTHERs are dropped."
)
def merge_command(gallery: Place, person: str, others: tuple[str, ...], keep_name: bool) -> None:
    """Make PERSON and all OTHERs one person."""
    with opened(gallery) as engine:
        _say_faces(engine.merge(person, *others, keep_name=keep_name))


@click.command("split")
@gallery_argument
@person_argument
@faces_argument
def split_command(gallery: Place, person: str, faces: tuple[int, ...]) -> None:
    """Move FACEs of PERSON to a new person."""
    with opened(gallery) as engine:
        _say_faces(engine.split(person, *faces))


@click.command("this-person")
@gallery_argument
@person_argument
@faces_argument
def this_person_command(gallery: Place, person: str, faces: tuple[int, ...]) -> None:
    """State that FACEs show PERSON."""
    with opened(gallery) as engine:
        _say_faces(engine.this_person(person, *faces))


@click.command("not-this-person")
@gallery_argument
@person_argument
@faces_argument
def not_this_person_command(gallery: Place, person: str, faces: tuple[int, ...]) -> None:
    """State that FACEs do not show PERSON."""
    with opened(gallery) as engine:
        _say_faces(engine.not_this_person(person, *faces))


@click.command("different")
@gallery_argument
@click.argument("face", type=click.IntRange(1, 2**63 - 1))
@click.argument("other", type=click.IntRange(1, 2**63 - 1))
def different_command(gallery: Place, face: int, other: int) -> None:
    """State that faces FACE and OTHER show different people.

    They are never grouped together, nor suggested as one person.
    """
    with opened(gallery) as engine:
        engine.different(face, other)
    say(f"face {face} and face {other} are different people")


@click.command("hide")
@gallery_argument
@click.argument("people", nargs=-1, required=True, metavar="PERSON...")
@click.option("--show", is_flag=True, help="Show them again.")
def hide_command(gallery: Place, people: tuple[str, ...], show: bool) -> None:
    """Leave PERSONs out of suggestions, and out of the lists of the pages.

    All of them are one edit.
    """
    with opened(gallery) as engine:
        some = engine.hide_people(people, not show)
    for one in some:
        say(f"person {one.id}: {_name(one)}, {'hidden' if one.hidden else 'shown'}")


@click.command("edits")
@gallery_argument
@json_lines_option
def edits_command(gallery: Place, as_json: bool) -> None:
    """List the edits of people that 'undo' can take back, the newest first."""
    with opened(gallery) as engine:
        edits = engine.edits()
    for edit in edits:
        if as_json:
            out(json.dumps(edit._asdict()))
        else:
            made = "" if edit.made is None else time.strftime("%F %T", time.localtime(edit.made))
            out(f"{made:<19}  {edit.what}")
    if not edits:
        say("there is nothing to undo")


@click.command("ignore")
@gallery_argument
@faces_argument
def ignore_command(gallery: Place, faces: tuple[int, ...]) -> None:
    """State that FACEs are no faces, such as those of dolls and posters.

    They leave the gallery, and do not come back when their photos are indexed again. 'undo' takes
    them back.
    """
    with opened(gallery) as engine:
        say(f"{count(engine.ignore(*faces).faces, 'face')} ignored")


@click.command("marks")
@gallery_argument
@click.argument("photos", nargs=-1, metavar="[PHOTO]...")
@json_lines_option
def marks_command(gallery: Place, photos: tuple[str, ...], as_json: bool) -> None:
    """List the faces that were marked by hand and have no landmarks, in PHOTOs or in all photos."""
    with opened(gallery) as engine:
        found = engine.marked_faces(*photos)
    for one in found:
        if as_json:
            out(
                json.dumps(
                    {
                        "mark": one.mark.id,
                        "photo": one.photo,
                        "copies": list(one.copies),
                        "box": list(one.mark.box),
                        "person": one.mark.person,
                        "name": one.name,
                    }
                )
            )
        else:
            who = "nobody" if one.mark.person is None else one.name or f"person {one.mark.person}"
            place = f"{printable(one.photo)}, face at {box_words(one.mark.box)}"
            out(f"{one.mark.id:>6}  {place}: {printable(who)}")
    say(count(len(found), "mark"))


@click.command("mark")
@gallery_argument
@click.argument("photo")
@click.argument("left", type=Number(min=0))
@click.argument("top", type=Number(min=0))
@click.argument("right", type=Number(min=0))
@click.argument("bottom", type=Number(min=0))
@click.option("--name", type=PersonName(), help="Name of the person that it shows.")
@json_line_option
def mark_command(
    gallery: Place,
    photo: str,
    left: float,
    top: float,
    right: float,
    bottom: float,
    name: str | None,
    as_json: bool,
) -> None:
    """Mark a face of PHOTO that the detector missed, by its box in pixels of the upright photo.

    If landmarks are found in the box, the face is one as any other. Otherwise it becomes a mark: it
    can be named, and no search finds it. 'undo' takes it back; a name is an edit of its own.
    """
    from face2vec.gallery.people import checked_name

    if name is not None:
        name = checked_name(name)  # before anything is marked
    with opened(gallery) as engine:
        made = engine.mark_face(photo, (left, top, right, bottom))
        person = None
        if name is not None:
            person = (
                engine.name_mark(made.mark, name)
                if made.face is None and made.mark is not None
                else engine.name_face(made.face or 0, name)
            )
    if as_json:
        out(json.dumps({**made._asdict(), "person": None if person is None else person.id}))
    what = (
        f"mark {made.mark}: no landmarks were found, so no search finds it"
        if made.face is None
        else f"face {made.face}: searches find it as any other"
    )
    say(what if person is None else f"{what}; it shows {printable(person.label)}")


@click.command("unmark")
@gallery_argument
@click.argument(
    "marks", type=click.IntRange(1, 2**63 - 1), nargs=-1, required=True, metavar="MARK..."
)
def unmark_command(gallery: Place, marks: tuple[int, ...]) -> None:
    """Delete MARKs, whose numbers 'marks' lists. 'undo' takes them back one by one."""
    with opened(gallery) as engine:
        for mark in dict.fromkeys(marks):
            engine.unmark(mark)
            say(f"mark {mark} deleted")


@click.command("readmit")
@gallery_argument
@photos_argument
def readmit_command(gallery: Place, photos: tuple[str, ...]) -> None:
    """Let PHOTOs be indexed again with faces that were forgotten or ignored in them."""
    with opened(gallery) as engine:
        done = engine.readmit(*photos)
    say(f"{count(done.photos, 'photo')} readmitted, {count(done.faces, 'face')} added")
    say(f"Index them again: face2vec index PHOTOS --gallery {shlex.quote(str(gallery))}")


@click.command("undo")
@gallery_argument
def undo_command(gallery: Place) -> None:
    """Undo the last edit of people; repeat it to undo earlier edits, back to the last 'forget'."""
    with opened(gallery) as engine:
        say(f"undone: {printable(engine.undo())}")


@click.command("identify")
@gallery_argument
@queries_argument
@click.option(
    "--at-least",
    type=Number(0, 1),
    default=0.9,
    show_default=True,
    help="Lowest probability to name somebody.",
)
@json_lines_option
@click.pass_context
def identify_command(
    ctx: click.Context, gallery: Place, photos: tuple[str, ...], at_least: float, as_json: bool
) -> None:
    """Name the people in each PHOTO, among those with a name in a gallery.

    The exit code is 0 if every face has a name, and 1 if one is unknown or there is no face.
    """
    unreadable, unknown = False, False
    with opened(gallery) as engine:
        for photo in photos:
            try:
                found = engine.identify(photo, at_least=at_least)
            except PhotoError as error:
                say_error(error)
                unreadable = True
                continue
            if not found:
                say(f"{printable(photo)}: no face found")
            unknown |= not found or any(one.person is None for one in found)
            for one in found:
                if as_json:
                    out(json.dumps({"photo": photo, **one.to_dict()}))
                else:
                    where = f"{printable(photo)}, face at {box_words(one.face.box)}"
                    out(f"{where}: {printable(one.label)}, {percent(one.probability)}")
    if unreadable:
        ctx.exit(ERROR)
    ctx.exit(PARTLY if unknown else DONE)


@click.command("forget")
@gallery_argument
@person_argument
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_context
def forget_command(ctx: click.Context, gallery: Place, person: str, yes: bool) -> None:
    """Delete PERSON from a gallery permanently: faces, embeddings and name.

    Photos that show nobody else are removed from the gallery. Only their SHA-256 is kept, so that
    they are not indexed again. The photo files are not touched. The exit code is 1 if traces are
    left in the files of the gallery, or may be left for a while, as in Milvus.
    """
    with opened(gallery) as engine:
        if not engine.is_half_forgotten(person):
            known = engine.person(person)
            faces = count(len(known.faces), "face")
            if not yes and not _confirmed(
                f"Delete {printable(known.label)} and {faces} permanently?"
            ):
                say("nothing was deleted; --yes deletes without a question")
                ctx.exit(INTERRUPTED)
        done = engine.forget(person)
    deleted = f"{count(done.faces, 'face')} and {count(done.photos, 'photo')} deleted"
    say(f"finished a deletion that was interrupted: {deleted}" if done.resumed else deleted)
    for left in done.left:
        out(left)
    if isinstance(gallery, MilvusAddress):
        say("these may be left for a while; no search finds the faces, and 'check' looks again")
        ctx.exit(PARTLY)
    found = f"{len(done.left)} found" if done.left else "nothing is left"
    secrets = "the name" if done.resumed else "embeddings, landmarks and the name"
    say(f"searched all files of the gallery for {secrets}: {found}")
    ctx.exit(PARTLY if done.left else DONE)


PEOPLE_COMMANDS = (
    enroll_command,
    people_command,
    identify_command,
    name_command,
    merge_command,
    split_command,
    this_person_command,
    not_this_person_command,
    different_command,
    hide_command,
    ignore_command,
    marks_command,
    mark_command,
    unmark_command,
    edits_command,
    undo_command,
    forget_command,
    readmit_command,
)


def _confirmed(question: str) -> bool:
    """Whether the user says yes; no answer means no."""
    try:
        return click.confirm(safe(question), err=True)
    except click.Abort:
        return False


def _name(person: Person) -> str:
    return "unnamed" if person.name is None else printable(person.name)


def _facts(person: Person, engine: Face2Vec) -> dict[str, Any]:
    faces = [
        {
            "face": one.face.id,
            "photo": one.photo,
            "box": [float(v) for v in one.face.box],
            "time": one.face.time,
        }
        for one in engine.faces_of(person)
    ]
    return {"person": person.id, "name": person.name, "faces": faces}


def _say_faces(person: Person) -> None:
    say(f"{printable(person.label)}: {count(len(person.faces), 'face')}")
