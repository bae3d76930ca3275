"""``face2vec verify`` and ``face2vec calibrate``: the same person or not, and how sure."""

from __future__ import annotations

import json
from pathlib import Path

import click

from face2vec.cli.common import Number, json_line_option, no_bar_option

SAME, DIFFERENT = 0, 1


@click.command("verify")
@click.argument("first", metavar="PHOTO")
@click.argument("second", metavar="PHOTO")
@click.option("--gallery", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Use this gallery's model and calibration.")  # fmt: skip
@click.option("--model", metavar="KEY_OR_FILE", help="Embedding model.")
@click.option("--far", type=Number(0, 1, min_open=True), default=1e-3, show_default=True,
              help="Share of pairs of two people that may be taken for one.")  # fmt: skip
@json_line_option
@click.pass_context
def verify_command(
    ctx: click.Context,
    first: str,
    second: str,
    gallery: Path | None,
    model: str | None,
    far: float,
    as_json: bool,
) -> None:
    """Say whether the largest faces of two photos are of one person.

    Exit code 0 for one person, 1 for two.
    """
    from face2vec.engine import Face2Vec
    from face2vec.gallery.gallery import Gallery

    if gallery is not None:
        Gallery.open(gallery).close()  # a folder without one says nothing of models
    with Face2Vec(gallery, model=model) as engine:
        found = engine.verify(first, second, far=far)
        data = engine.calibration.data
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    else:
        click.echo(
            f"{'one person' if found.same else 'two people'}\n"
            f"similarity {found.similarity:.3f}, taken for one person from {found.threshold:.3f} on"
            f" (distance {found.distance:.3f}, up to {found.distance_threshold:.3f})\n"
            f"probability {found.probability:.1%} where one in two such pairs is of one person"
        )
        click.echo(f"{far:g} of all pairs of two people are taken for one, as fitted on {data}",
                   err=True)  # fmt: skip
    ctx.exit(SAME if found.same else DIFFERENT)


@click.command("calibrate")
@click.argument("people", type=click.Path(path_type=Path, exists=True))
@click.option("--gallery", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Store it in this gallery, whose model is used.")  # fmt: skip
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it to this file; found beside a model as NAME.calibration.json.",
)
@click.option("--model", metavar="KEY_OR_FILE", help="Embedding model, without --gallery.")
@click.option("--faces", type=click.Path(path_type=Path),
              help="Keep the faces of PEOPLE in a gallery here. [default: nowhere]")  # fmt: skip
@click.option("--data", help="What PEOPLE is, in words. [default: its name]")
@no_bar_option
def calibrate_command(
    people: Path,
    gallery: Path | None,
    out: Path | None,
    model: str | None,
    faces: Path | None,
    data: str | None,
    quiet: bool,
) -> None:
    """Fit what similarities mean on photos whose people are known.

    PEOPLE is a folder with a folder of photos a person, or a text file with a photo and a
    person a line. It should be like the photos that will be searched.
    """
    from face2vec.engine import Face2Vec
    from face2vec.engine_opened import origin_of
    from face2vec.evaluation.fitting import calibration_on
    from face2vec.evaluation.sets import named_photos
    from face2vec.gallery.gallery import Gallery

    if (gallery is None) == (out is None) or (gallery is not None and model is not None):
        raise click.UsageError("give --gallery, or --out with the --model that it is for")
    if out is not None and not out.absolute().parent.is_dir():
        raise click.UsageError(f"there is no folder {out.absolute().parent} to write {out.name} in")
    if gallery is not None:
        with Gallery.open(gallery) as opened:
            model = origin_of(opened)
    fitted = calibration_on(named_photos(people), faces, model=model, data=data or people.name,
                            progress=not quiet)  # fmt: skip
    if gallery is not None:
        with Face2Vec(gallery) as engine:
            engine.calibrate(fitted)
    if out is not None:
        out.write_text(fitted.to_json() + "\n", encoding="utf-8")
    for far in (1e-1, 1e-2, 1e-3, 1e-4):
        if far >= fitted.fars[-1]:
            click.echo(f"false accept rate {far:g}: similarity {fitted.threshold(far):.3f}",
                       err=True)  # fmt: skip
    click.echo(
        f"Fitted on {fitted.genuine:,} pairs of one person and {fitted.impostor:,} of two, "
        f"{fitted.people:,} people.",
        err=True,
    )
