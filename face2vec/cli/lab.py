"""``face2vec lab``: experiments that show the strengths and weaknesses of a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from face2vec.cli.common import (
    FilePath,
    Number,
    Option,
    command_line,
    json_line_option,
    quiet_option,
    report_option,
    say,
    together,
)
from face2vec.cli.common import out as print_result
from face2vec.cli.train import (
    aligned_option,
    choose_backend,
    faces_of,
    read_json,
    tables_option,
)
from face2vec.errors import SettingsError

if TYPE_CHECKING:
    from face2vec.engine import Face2Vec
    from face2vec.lab.studies import Training


@click.group("lab")
def lab_commands() -> None:
    """Run experiments that show the strengths and weaknesses of a model."""


def _drawn_options(people: int, photos: int) -> Option:
    """Options for the choice of subjects and the threshold."""
    return together(
        click.option(
            "--people",
            type=click.IntRange(min=2),
            default=people,
            show_default=True,
            help="Number of people, drawn at random from those with two photos.",
        ),
        click.option(
            "--photos",
            type=click.IntRange(min=2),
            default=photos,
            show_default=True,
            help="Photos of each person.",
        ),
        click.option("--model", metavar="KEY_OR_FILE", help="Embedding model."),
        _far_option("False accept rate of the threshold."),
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Seed of all random choices.",
        ),
        report_option("plots"),
        json_line_option,
        quiet_option,
    )


def _far_option(words: str, *names: str, default: Any = 1e-3, multiple: bool = False) -> Option:
    rate = Number(0, 1, min_open=True, max_open=True)
    return click.option(
        "--far",
        *names,
        type=rate,
        default=default,
        multiple=multiple,
        show_default=True,
        help=words,
    )


@lab_commands.command("robustness")
@click.argument("source", metavar="GALLERY_OR_FOLDER", type=FilePath(path_type=Path, exists=True))
@click.option(
    "--only", multiple=True, metavar="NAME", help="Only this degradation; can be repeated."
)
@_drawn_options(people=100, photos=3)
def robustness_command(
    source: Path,
    people: int,
    photos: int,
    only: tuple[str, ...],
    model: str | None,
    far: float,
    seed: int,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Degrade photos step by step and measure recognition.

    GALLERY_OR_FOLDER is a gallery with named people, a folder with one folder of photos per person,
    or a text file with a photo and a person on each line. Each photo is enrolled unchanged, and
    searched with changes: light, blur, noise, JPEG quality, size, rotation, half a face, a mask,
    sunglasses, text, paint.
    """
    from face2vec.lab.catalogue import chosen
    from face2vec.lab.report import robustness_text, save_robustness
    from face2vec.lab.robustness import robustness
    from face2vec.lab.subjects import subjects_of
    from face2vec.report.html import Made

    degradations = chosen(only)
    with _engine(source, model) as engine:
        subjects = subjects_of(source, engine, people=people, photos=photos, seed=seed)
        measured = robustness(
            subjects, engine, degradations, far=far, seed=seed, progress=not quiet
        )
        used = engine.encoder.model.fingerprint
    print_result(json.dumps(measured.figures()) if as_json else robustness_text(measured))
    _warn_of_few_pairs(far, measured.impostor_pairs)
    if out is not None:
        title = f"What {measured.model} sees in {_name(source)}"
        made = Made(command_line(), used.key, used.weights)
        say(f"See {save_robustness(measured, out, title, made)}")


@lab_commands.command("slices")
@click.argument("table", type=FilePath(path_type=Path, exists=True, dir_okay=False))
@click.option("--by", multiple=True, metavar="COLUMN", help="Column to slice by; can be repeated.")
@_drawn_options(people=1000, photos=5)
def slices_command(
    table: Path,
    by: tuple[str, ...],
    people: int,
    photos: int,
    model: str | None,
    far: float,
    seed: int,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure groups of photos or people separately, and warn of weak ones.

    TABLE is a CSV file with a column photo (or file), a column person, and columns such as age,
    origin or glasses. Photos are relative to it. All slices are measured at one threshold.
    """
    from face2vec.lab.report import save_slices, slices_text
    from face2vec.lab.tables import read_table, slices_of
    from face2vec.report.html import Made

    read = read_table(table, by)
    with _engine(table, model) as engine:
        measured = slices_of(read, engine, people=people, photos=photos, far=far, seed=seed)
        used = engine.encoder.model.fingerprint
    if as_json:
        print_result(json.dumps(measured.figures()))
    else:
        rows = (measured.everybody, *measured.slices)
        print_result(f"{measured.about}\n\n{slices_text(rows)}")
    for name in read.left_out:
        say(f"column {name} has too many different values to slice by")
    for one in measured.slices:
        if one.remark and not quiet:
            say(f"{one.attribute} {one.value}: {one.remark}")
    _warn_of_few_pairs(far, measured.impostor_pairs)
    if out is not None:
        title = f"Slices of {_name(table)}, {measured.model}"
        made = Made(command_line(), used.key, used.weights)
        page = save_slices(
            measured.slices, measured.everybody, measured.about, out, title, made, measured.failed
        )
        say(f"See {page}")


_study_options = together(
    click.option(
        "--out",
        type=FilePath(path_type=Path, file_okay=False),
        required=True,
        help="Folder for the trainings and the page; the same command resumes.",
    ),
    tables_option,
    aligned_option,
    click.option(
        "--teacher",
        metavar="KEY_OR_FILE",
        multiple=True,
        help="Train by distillation from this model; several are put together. FACES need no names "
        "then, but --test is needed.",
    ),
    click.option(
        "--test",
        metavar="PHOTOS",
        help="Measure on these people, a folder or a CSV file as for FACES; by default on a tenth "
        "of the people of FACES, held out.",
    ),
    click.option(
        "--recipe",
        type=FilePath(path_type=Path, dir_okay=False, exists=True),
        help="A JSON file with the other settings of the trainings.",
    ),
    click.option(
        "--epochs",
        type=click.IntRange(min=1),
        default=20,
        show_default=True,
        help="Epochs of each training; not with --recipe.",
    ),
    _far_option(
        "False accept rate at which TAR is measured; can be repeated.",
        "fars",
        multiple=True,
        default=(1e-3,),
    ),
    json_line_option,
    click.option("-q", "--quiet", is_flag=True, help="Do not report each training."),
)


@lab_commands.command("dimensions")
@click.argument("faces", nargs=-1, required=True)
@click.option(
    "--dimension",
    "sizes",
    type=click.IntRange(min=1),
    multiple=True,
    help="Length of embeddings; can be repeated. [default: 32 to 512, doubling]",
)
@_study_options
def dimensions_command(faces: tuple[str, ...], sizes: tuple[int, ...], **options: Any) -> None:
    """Train the small network with several lengths of embeddings.

    FACES is as for 'face2vec train', with names or with --teacher.
    """
    from face2vec.lab.studies import DIMENSIONS, by_dimension

    _study(faces, "Embedding size", by_dimension, sizes or DIMENSIONS, **options)


@lab_commands.command("data")
@click.argument("faces", nargs=-1, required=True)
@click.option(
    "--share",
    "shares",
    type=Number(0, 1, min_open=True),
    multiple=True,
    help="Share of the people, or with --teacher of the faces; can be repeated. [default: 0.0625, "
    "0.125, 0.25, 0.5, 1]",
)
@_study_options
def data_command(faces: tuple[str, ...], shares: tuple[float, ...], **options: Any) -> None:
    """Train the small network on several shares of the data.

    FACES is as for 'face2vec train', with names or with --teacher. All trainings have about the
    same number of steps.
    """
    from face2vec.lab.studies import SHARES, by_data

    _study(faces, "Amount of training data", by_data, shares or SHARES, **options)


def _study(
    sources: tuple[str, ...],
    title: str,
    study: Callable[..., list[Training]],
    values: tuple[Any, ...],
    *,
    out: Path,
    tables: tuple[Path, ...],
    aligned: bool,
    teacher: tuple[str, ...],
    test: str | None,
    recipe: Path | None,
    epochs: int,
    fars: tuple[float, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    if teacher and test is None:
        raise SettingsError("--teacher needs --test, photos of people to measure on")
    choose_backend()
    from face2vec.lab.studies import course, save_study, study_text
    from face2vec.report.html import Made
    from face2vec.training.faces import load_faces
    from face2vec.training.recipe import Recipe

    given: dict[str, Any] = (
        {"schedule": {"epochs": epochs}} if recipe is None else read_json(recipe)
    )
    if teacher:
        given = {"teacher_sees": "clean", **given, "loss": "distillation", "teacher": teacher}
    settings = Recipe.from_dict(given)
    description = settings.description()
    faces = faces_of(sources, tables, description, aligned=aligned)
    held = None if test is None else load_faces(test, description)
    progress = (lambda _: None) if quiet else say
    common = course(settings, faces, out, test=held, fars=fars, say=progress)
    trainings = study(common, values)
    print_result(
        json.dumps([one.figures() for one in trainings]) if as_json else study_text(trainings)
    )
    others = tuple((one.label, one.weights) for one in trainings)
    page = save_study(trainings, out, title, Made(command_line(), others=others), faces.failed)
    say(f"See {page}")


def _engine(source: Path, model: str | None) -> Face2Vec:
    from face2vec.engine import Face2Vec
    from face2vec.lab.subjects import is_gallery

    return Face2Vec(source if is_gallery(source) else None, model=model)


def _name(source: Path) -> str:
    whole = source.resolve()
    return whole.name if whole.is_dir() else whole.stem


def _warn_of_few_pairs(far: float, pairs: int) -> None:
    """A threshold with fewer than ten pairs above it depends on chance."""
    if far * pairs < 10:
        say(
            f"The threshold rests on {far * pairs:.1f} of {pairs:,} impostor pairs; use more "
            "--people or a higher --far"
        )
