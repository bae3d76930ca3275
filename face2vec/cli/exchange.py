"""Commands that exchange numbers with other programs: encode, export, import."""

from __future__ import annotations

import json
from pathlib import Path

import click

from face2vec.cli.common import (
    FilePath,
    count,
    gallery_argument,
    json_line_option,
    json_lines_option,
    model_option,
    opened,
    out,
    photos_argument,
    runtime_options,
    say,
    say_error,
)
from face2vec.cli.exits import DONE, PARTLY
from face2vec.detection import DETECTORS
from face2vec.report.text import at_words, box_words, printable


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
@click.argument("out_file", type=FilePath(dir_okay=False), metavar="OUT")
def export_command(gallery: Path, out_file: str) -> None:
    """Write all faces of a gallery to a table: boxes, landmarks, qualities, people, embeddings.

    The suffix of OUT names the format: .parquet, .csv, .npz or .jsonl. Beside a .csv and a .jsonl
    file, the file OUT.model.json says what made the embeddings; the others have it inside.
    """
    with opened(gallery) as engine:
        say(f"{count(engine.export(out_file), 'face')} written to {printable(out_file)}")


@click.command("import")
@gallery_argument
@click.argument("table", type=FilePath(dir_okay=False))
@click.option(
    "--model",
    metavar="KEY_OR_FILE",
    help="What made the embeddings: a key that 'models' lists, a model file, or its description.",
)
@click.option(
    "--root",
    type=FilePath(),
    help="Folder that relative photos are in. [default: the folder of TABLE]",
)
@json_line_option
def import_command(
    gallery: Path, table: str, model: str | None, root: str | None, as_json: bool
) -> None:
    """Add faces with embeddings that were made elsewhere to a gallery.

    TABLE is a .parquet, .csv, .npz or .jsonl file with the columns of 'export', of which only the
    embedding is needed. The column photo has a path, or any name. The column name names the face.
    """
    with opened(gallery) as engine:
        done = engine.import_faces(table, model=model, root=root)
    if as_json:
        out(json.dumps(done.to_dict()))
    say(
        f"{count(done.faces, 'face')} of {count(done.photos, 'photo')} added, {done.named:,} of "
        f"them named; {count(done.known, 'photo')} known"
    )


EXCHANGE_COMMANDS = (encode_command, export_command, import_command)
