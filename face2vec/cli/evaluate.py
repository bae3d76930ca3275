"""``face2vec evaluate``: measured on photos whose people are known."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from face2vec.cli.common import json_line_option, no_bar_option, report_option, together

if TYPE_CHECKING:
    from face2vec.evaluation.report import Report
    from face2vec.evaluation.sets import NamedFaces, NamedPhotos

MODEL_HELP = (
    "A model's key or file, or another encoder: keras-facenet:KEY, deepface:MODEL (see compare)."
)


@click.group("evaluate")
def evaluate_commands() -> None:
    """Measure a model on photos whose people are known."""


_encoder_option = click.option("--model", metavar="ENCODER", help=MODEL_HELP)
_report_options = together(report_option("curves.png"), json_line_option, no_bar_option)
_shared_options = together(
    _encoder_option,
    click.option("--gallery", type=click.Path(path_type=Path),
                 help="Keep the faces here, to go on or to measure again. [default: nowhere]"),
    _report_options,
)  # fmt: skip


@evaluate_commands.command("lfw")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@_shared_options
def lfw_command(folder: Path, **options: Any) -> None:
    """Labeled Faces in the Wild: View 2, and all pairs of all photos.

    FOLDER holds pairs.txt and a folder of photos a person, in itself or in images/.
    A photo in which no face is found is an error in every figure.
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
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@_encoder_option
@_report_options
def youtube_command(
    folder: Path, model: str | None, out: Path | None, as_json: bool, quiet: bool
) -> None:
    """YouTube Faces: pairs of videos in ten folds.

    FOLDER holds splits.txt, and a folder a person of videos, in itself or in
    frame_images_DB/ or aligned_images_DB/; a video is a folder of frames or a film. Two
    videos are as similar as, in the mean, all pairs of their first 100 faces.
    """
    from face2vec.evaluation.report import pairs_report
    from face2vec.evaluation.videos import named_videos, youtube_pairs

    pairs = youtube_pairs(folder)
    videos = named_videos(pairs, model=model, progress=not quiet)
    title = f"YouTube Faces, {videos.model}"
    _tell(pairs_report(title, videos, pairs, things="video"), out, as_json)


@evaluate_commands.command("pairs")
@click.argument("people", type=click.Path(path_type=Path, exists=True))
@_shared_options
def pairs_command(people: Path, **options: Any) -> None:
    """All pairs of photos: true accepts at false accept rates.

    PEOPLE is a folder with a folder of photos a person, or a text file with a photo and a
    person a line, as CelebA has it.
    """
    from face2vec.evaluation.report import pairs_report

    _measure_people(people, "Pairs of", pairs_report, **options)


@evaluate_commands.command("identification")
@click.argument("people", type=click.Path(path_type=Path, exists=True))
@_shared_options
def identification_command(people: Path, **options: Any) -> None:
    """Who is it? Rank-1, ranks below, and strangers taken for somebody.

    PEOPLE is a folder with a folder of photos a person, or a text file with a photo and a
    person a line, as CelebA has it.
    """
    from face2vec.evaluation.report import identification_report

    _measure_people(people, "Identification in", identification_report, **options)


def _measure_people(
    people: Path, what: str, report: Callable[[str, NamedFaces], Report], **options: Any
) -> None:
    """Measure on a folder of people or a list, and call it by its folder."""
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
) -> None:
    from face2vec.evaluation.encoders import is_other, open_encoder
    from face2vec.evaluation.sets import encoded_faces, named_faces

    if not is_other(model):
        faces = named_faces(photos, gallery, model=model, progress=not quiet)
    elif gallery is not None:
        raise click.UsageError("a gallery keeps faces of face2vec's own; leave out --gallery")
    else:
        with closing(open_encoder(model)) as encoder:
            faces = encoded_faces(photos, encoder, progress=not quiet)
    _tell(report(faces, faces.model), out, as_json)


def _tell(measured: Report, out: Path | None, as_json: bool) -> None:
    click.echo(measured.to_json() if as_json else measured.to_text())
    if out is not None:
        click.echo(f"Look at {measured.save(out)}", err=True)
