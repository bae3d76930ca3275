"""``face2vec evaluate``: error rates on photos of known people."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from face2vec.cli.common import (
    FilePath,
    command_line,
    json_line_option,
    quiet_option,
    report_option,
    say,
    together,
)
from face2vec.cli.common import out as print_result

if TYPE_CHECKING:
    from face2vec.evaluation.report import Report
    from face2vec.evaluation.sets import NamedFaces, NamedPhotos, Which

MODEL_HELP = (
    "A model's key or file, or an encoder of another package: keras-facenet:KEY, deepface:MODEL "
    "(see 'face2vec compare --help')."
)


@click.group("evaluate")
def evaluate_commands() -> None:
    """Measure the error rates of a model on photos of known people."""


_encoder_option = click.option("--model", metavar="ENCODER", help=MODEL_HELP)
_report_options = together(report_option("curves.png"), json_line_option, quiet_option)
_face_option = click.option(
    "--face",
    "which",
    type=click.Choice(("largest", "centre")),
    default="largest",
    show_default=True,
    help="Which face of a photo is the named person's; that of LFW and CelebA is in the centre.",
)
_shared_options = together(
    _encoder_option,
    click.option(
        "--gallery",
        type=FilePath(path_type=Path),
        help="Keep the faces in a gallery in this folder, to resume or to measure again.",
    ),
    _report_options,
)


@evaluate_commands.command("lfw")
@click.argument("folder", type=FilePath(path_type=Path, exists=True, file_okay=False))
@_shared_options
def lfw_command(folder: Path, **options: Any) -> None:
    """Labeled Faces in the Wild: View 2, and all pairs of photos.

    FOLDER contains pairs.txt and one folder of photos per person, directly or in images/. The
    person is the face nearest the centre of a photo. A photo without a detected face counts as an
    error in every figure.
    """
    from face2vec.evaluation.report import pairs_report
    from face2vec.evaluation.sets import lfw_pairs, photos_in

    view_2 = lfw_pairs(folder)
    _measure(
        photos_in(folder),
        lambda faces, model: pairs_report(f"Labeled Faces in the Wild, {model}", faces, view_2),
        **options,
    )


@evaluate_commands.command("youtube")
@click.argument("folder", type=FilePath(path_type=Path, exists=True, file_okay=False))
@_encoder_option
@_report_options
def youtube_command(
    folder: Path, model: str | None, out: Path | None, as_json: bool, quiet: bool
) -> None:
    """YouTube Faces: pairs of videos in ten folds.

    FOLDER contains splits.txt and one folder of videos per person, directly or in frame_images_DB/
    or aligned_images_DB/. A video is a folder of frames or a video file. The similarity of two
    videos is the mean similarity of all pairs of their first 100 faces.
    """
    from face2vec.evaluation.report import pairs_report
    from face2vec.evaluation.videos import named_videos, youtube_pairs

    pairs = youtube_pairs(folder)
    videos = named_videos(pairs, model=model, progress=not quiet)
    title = f"YouTube Faces, {videos.model}"
    _tell(pairs_report(title, videos, pairs, things="video"), out, as_json)


@evaluate_commands.command("pairs")
@click.argument("people", type=FilePath(path_type=Path, exists=True))
@_face_option
@_shared_options
def pairs_command(people: Path, **options: Any) -> None:
    """All pairs of photos: true accept rates at false accept rates.

    PEOPLE is a folder with one folder of photos per person, or a text file with a photo and a
    person on each line, as CelebA has it.
    """
    from face2vec.evaluation.report import pairs_report

    _measure_people(people, "Pairs of", pairs_report, **options)


@evaluate_commands.command("identification")
@click.argument("people", type=FilePath(path_type=Path, exists=True))
@_face_option
@_shared_options
def identification_command(people: Path, **options: Any) -> None:
    """Identification: rank-1 and other ranks, and strangers that are accepted.

    PEOPLE is a folder with one folder of photos per person, or a text file with a photo and a
    person on each line, as CelebA has it.
    """
    from face2vec.evaluation.report import identification_report

    _measure_people(people, "Identification in", identification_report, **options)


def _measure_people(
    people: Path, what: str, report: Callable[[str, NamedFaces], Report], **options: Any
) -> None:
    """Measure on a folder of people or a list, named after its folder."""
    from face2vec.evaluation.sets import named_photos

    whole = people.resolve()
    name = whole.name if whole.is_dir() else whole.parent.name
    _measure(
        named_photos(people),
        lambda faces, model: report(f"{what} {name}, {model}", faces),
        **options,
    )


def _measure(
    photos: NamedPhotos,
    report: Callable[[NamedFaces, str], Report],
    *,
    model: str | None,
    gallery: Path | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
    which: Which = "centre",
) -> None:
    from face2vec.evaluation.encoders import is_other, open_encoder
    from face2vec.evaluation.sets import encoded_faces, named_faces

    if not is_other(model):
        faces = named_faces(photos, gallery, model=model, which=which, progress=not quiet)
    elif gallery is not None:
        raise click.UsageError(
            "a gallery cannot keep faces of another package; leave out --gallery"
        )
    else:
        with closing(open_encoder(model)) as encoder:
            faces = encoded_faces(photos, encoder, which=which, progress=not quiet)
    _tell(report(faces, faces.model), out, as_json)


def _tell(measured: Report, out: Path | None, as_json: bool) -> None:
    print_result(measured.to_json() if as_json else measured.to_text())
    if out is not None:
        say(f"See {measured.save(out, command_line())}")
