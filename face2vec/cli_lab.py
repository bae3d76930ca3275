"""``face2vec lab``: what a model is good at and bad at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from face2vec.engine import Face2Vec

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group("lab")
def lab_commands() -> None:
    """Find out what a model is good at and bad at."""


def _shared_options(command: Command) -> Command:
    for option in (
        click.option("-q", "--quiet", is_flag=True, help="No bar."),
        click.option("--json", "as_json", is_flag=True, help="One line of JSON on stdout."),
        click.option("--out", type=click.Path(path_type=Path, file_okay=False),
                     help="Write report.html, figures.json and plots into this folder."),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                     help="Of who is drawn and of what is random."),
        click.option("--far", type=click.FloatRange(0, 1, min_open=True, max_open=True),
                     default=1e-3, show_default=True,
                     help="False accept rate that the threshold is set for."),
        click.option("--model", metavar="KEY_OR_FILE", help="Embedding model."),
    ):  # fmt: skip
        command = option(command)
    return command


@lab_commands.command("robustness")
@click.argument("source", metavar="GALLERY_OR_FOLDER", type=click.Path(path_type=Path, exists=True))
@click.option("--people", type=click.IntRange(min=2), default=100, show_default=True,
              help="Drawn at random, of those with two photos.")  # fmt: skip
@click.option("--photos", type=click.IntRange(min=2), default=3, show_default=True,
              help="Of each of them.")  # fmt: skip
@click.option("--only", multiple=True, metavar="NAME", help="This degradation; may be repeated.")
@_shared_options
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
    """Make photos worse step by step and see what is still recognised.

    GALLERY_OR_FOLDER is a gallery whose people were named, a folder with a folder of photos a
    person, or a text file with a photo and a person a line. Each photo is enrolled clean and
    asked about changed: light, blur, noise, JPEG quality, size, rotation, half a face, a mask,
    sunglasses, words, paint.
    """
    from face2vec.lab.catalogue import chosen
    from face2vec.lab.report import robustness_text, save_robustness
    from face2vec.lab.robustness import robustness
    from face2vec.lab.sitters import sitters_of

    degradations = chosen(only)
    with _engine(source, model) as engine:
        sitters = sitters_of(source, engine, people=people, photos=photos, seed=seed)
        measured = robustness(sitters, engine, degradations, far=far, seed=seed, progress=not quiet)
    click.echo(json.dumps(measured.figures()) if as_json else robustness_text(measured))
    _mind_few_pairs(far, measured.impostor_pairs)
    if out is not None:
        title = f"What {measured.model} sees in {_name(source)}"
        click.echo(f"Look at {save_robustness(measured, out, title)}", err=True)


@lab_commands.command("slices")
@click.argument("table", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--by", multiple=True, metavar="COLUMN", help="Divide by it; may be repeated.")
@click.option("--people", type=click.IntRange(min=2), default=1000, show_default=True,
              help="Drawn at random, of those with two photos.")  # fmt: skip
@click.option("--photos", type=click.IntRange(min=2), default=5, show_default=True,
              help="Of each of them.")  # fmt: skip
@_shared_options
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
    """Measure each kind of photo or person apart, and warn where one is weak.

    TABLE is a CSV with a column photo (or file), a column person, and columns such as age,
    origin, glasses; photos are relative to it. All slices are measured at one threshold.
    """
    from face2vec.lab.report import save_slices, slices_text
    from face2vec.lab.tables import read_table, slices_of

    read = read_table(table, by)
    with _engine(table, model) as engine:
        measured = slices_of(read, engine, people=people, photos=photos, far=far, seed=seed)
    if as_json:
        click.echo(json.dumps(measured.figures()))
    else:
        rows = (measured.everybody, *measured.slices)
        click.echo(f"{measured.about}\n\n{slices_text(rows)}")
    for name in read.left_out:
        click.echo(f"{name} has too many different words to divide by", err=True)
    for one in measured.slices:
        if one.remark and not quiet:
            click.echo(f"{one.attribute} {one.value}: {one.remark}", err=True)
    _mind_few_pairs(far, measured.impostor_pairs)
    if out is not None:
        title = f"Slices of {_name(table)}, {measured.model}"
        page = save_slices(measured.slices, measured.everybody, measured.about, out, title)
        click.echo(f"Look at {page}", err=True)


def _engine(source: Path, model: str | None) -> Face2Vec:
    from face2vec.engine import Face2Vec
    from face2vec.lab.sitters import is_gallery

    return Face2Vec(source if is_gallery(source) else None, model=model)


def _name(source: Path) -> str:
    whole = source.resolve()
    return whole.name if whole.is_dir() else whole.stem


def _mind_few_pairs(far: float, pairs: int) -> None:
    """Below ten pairs beyond it a threshold is a matter of chance."""
    if far * pairs < 10:
        click.echo(
            f"The threshold rests on {far * pairs:.1f} of {pairs:,} pairs of two people; ask for "
            "more --people or a higher --far",
            err=True,
        )
