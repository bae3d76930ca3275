"""Commands that exchange numbers with other programs: encode, export, import."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from face2vec.cli.common import (
    FilePath,
    Place,
    count,
    gallery_argument,
    json_line_option,
    json_lines_option,
    model_option,
    opened,
    out,
    photos_argument,
    reasons,
    runtime_options,
    say,
    say_error,
)
from face2vec.cli.exits import DONE, PARTLY
from face2vec.detection import DETECTORS
from face2vec.report.text import at_words, box_words, printable

if TYPE_CHECKING:
    from face2vec.exchange.folders import PeopleExported
    from face2vec.exchange.sidecars import XmpExported


@click.command("encode")
@photos_argument
@model_option
@click.option(
    "--detector", type=click.Choice(DETECTORS), help="What finds the faces. [default: mtcnn]"
)
@runtime_options
@json_lines_option
@click.pass_context
def encode_command(
    ctx: click.Context,
    photos: tuple[str, ...],
    model: str | None,
    detector: str | None,
    runtime: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Print the faces of PHOTOs; with --json also their embeddings, one line for each photo.

    PHOTOs are what 'index' takes. No gallery is needed or changed. The exit code is 1 if a photo
    cannot be read.
    """
    from face2vec.engine import Face2Vec

    unreadable = False
    with Face2Vec(model=model, detector=detector, runtime=runtime, threads=threads) as engine:
        for encoded in engine.encode_photos(*photos):
            if encoded.error is not None:
                say_error(encoded.error)
                unreadable = True
            if as_json:
                out(encoded.to_json())
                continue
            name = printable(encoded.photo)
            for face in encoded.faces:
                place = f"{name}{at_words(face.time)}"
                out(f"{place}, face at {box_words(face.box)}, confidence {face.confidence:.3f}")
            if not encoded.faces and encoded.error is None:
                say(f"{name}: no face found")
    ctx.exit(PARTLY if unreadable else DONE)


@click.command("export")
@gallery_argument
@click.argument("out_file", type=FilePath(dir_okay=False), metavar="[OUT]", required=False)
@click.option("--xmp", is_flag=True, help="Write names and boxes to XMP sidecars of the photos.")
@click.option(
    "--to",
    type=FilePath(file_okay=False),
    metavar="DIR",
    help="With --xmp: write the sidecars below this folder.  [default: beside the photos]",
)
@click.option(
    "--embed",
    is_flag=True,
    help="With --xmp: write into the photos, with exiftool, which keeps each as PHOTO_original.",
)
@click.option(
    "--people",
    type=FilePath(file_okay=False),
    metavar="DIR",
    help="Copy the photos of each named person to a folder below this one.",
)
@click.option("--link", is_flag=True, help="With --people: make symbolic links instead of copies.")
@json_line_option
@click.pass_context
def export_command(
    ctx: click.Context,
    gallery: Place,
    out_file: str | None,
    xmp: bool,
    to: str | None,
    embed: bool,
    people: str | None,
    link: bool,
    as_json: bool,
) -> None:
    """Write the faces of a gallery to a table, their names to XMP, or photos to folders of people.

    The suffix of OUT names the format: .parquet, .csv, .npz or .jsonl. Beside a .csv and a .jsonl
    file, the file OUT.model.json says what made the embeddings; the others have it inside. A file
    .coco.json has photos, boxes, landmarks and people as COCO JSON, without embeddings.

    With --xmp, each photo with a named face gets a sidecar PHOTO.xmp. A sidecar of another program
    is extended, and nothing else in it changes.

    With --people, run it again to add what is new. Nothing that is there is changed or deleted.

    The exit code is 1 if a name or a photo cannot be written.
    """
    if (out_file is not None) + xmp + (people is not None) != 1:
        raise click.UsageError("give OUT, --xmp or --people, one of them")
    if not xmp and (to is not None or embed):
        raise click.UsageError("--to and --embed need --xmp")
    if to is not None and embed:
        raise click.UsageError("--embed writes into the photos, and --to to another folder")
    if link and people is None:
        raise click.UsageError("--link needs --people")
    with opened(gallery) as engine:
        if out_file is not None:
            faces = engine.export(out_file)
            if as_json:
                out(json.dumps({"faces": faces}))
            say(f"{count(faces, 'face')} written to {printable(out_file)}")
            return
        done: PeopleExported | XmpExported
        if people is not None:
            done = found = engine.export_people(people, link=link)
            what = "linked" if link else "copied"
            summary = (
                f"{count(len(found.folders), 'person', 'people')}: "
                f"{count(found.written, 'photo')} {what}, {found.there:,} there already"
            )
        else:
            done = names = engine.export_xmp(to, embed=embed)
            summary = (
                f"{count(names.faces, 'named face')}: {count(len(names.written), 'file')} "
                f"written, {names.unchanged:,} unchanged"
            )
    if as_json:
        out(json.dumps(done.to_dict()))
    say(summary)
    _say_refused("not written:", done.refused)
    ctx.exit(PARTLY if done.refused else DONE)


@click.command("import")
@gallery_argument
@click.argument("source", type=FilePath())
@click.option("--xmp", is_flag=True, help="SOURCE is a folder of photos, or a photo.")
@click.option(
    "--model",
    metavar="KEY_OR_FILE",
    help="What made the embeddings: a key that 'models' lists, a model file, or its description.",
)
@click.option(
    "--root",
    type=FilePath(),
    help="Folder that relative photos are in. [default: the folder of SOURCE]",
)
@json_line_option
@click.pass_context
def import_command(
    ctx: click.Context,
    gallery: Place,
    source: str,
    xmp: bool,
    model: str | None,
    root: str | None,
    as_json: bool,
) -> None:
    """Add faces with embeddings that were made elsewhere, or names from XMP, to a gallery.

    SOURCE is a .parquet, .csv, .npz or .jsonl file with the columns of 'export', of which only the
    embedding is needed. The column photo has a path, or any name. The column name names the face.

    With --xmp, faces get the names of the regions that other programs keep in sidecars of photos
    and inside them. 'undo' takes all names back. The exit code is 1 if one finds no face.
    """
    if not xmp:
        with opened(gallery) as engine:
            table = engine.import_faces(source, model=model, root=root)
        if as_json:
            out(json.dumps(table.to_dict()))
        say(
            f"{count(table.faces, 'face')} of {count(table.photos, 'photo')} added, "
            f"{table.named:,} of them named; {count(table.known, 'photo')} known"
            + (f"; {count(table.marks, 'mark')} without an embedding left out" * bool(table.marks))
        )
        return
    if model is not None or root is not None:
        raise click.UsageError("--model and --root are for tables, not for --xmp")
    with opened(gallery) as engine:
        done = engine.import_xmp(source)
    if as_json:
        out(json.dumps(done.to_dict()))
    say(
        f"{count(done.named, 'region')} named, {count(len(done.people), 'person', 'people')}"
        + (f"; {count(done.renamed, 'face')} had another name" if done.renamed else "")
    )
    if done.without_face:
        say(f"{count(len(done.without_face), 'region')} without a face in the gallery")
    if done.unknown:
        say(f"{count(len(done.unknown), 'photo')} with names not in the gallery")
    if done.unnamed:
        say(f"{count(done.unnamed, 'region')} without a name")
    _say_refused("XMP was refused:", done.refused)
    ctx.exit(DONE if done.is_complete else PARTLY)


def _say_refused(what: str, refused: Sequence[tuple[str, str]]) -> None:
    if refused:
        say(f"{what} {count(len({path for path, _ in refused}), 'file')}")
        for line in reasons(refused):
            say(line)


EXCHANGE_COMMANDS = (encode_command, export_command, import_command)
