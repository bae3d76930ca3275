"""``face2vec verify`` and ``face2vec calibrate``: same person or not, and with what probability."""

from __future__ import annotations

import json
from pathlib import Path

import click

from face2vec.cli.common import (
    FilePath,
    GalleryPlace,
    Number,
    Place,
    QueryPhoto,
    WrittenFile,
    json_line_option,
    model_option,
    quiet_option,
    say,
)
from face2vec.cli.common import (
    out as print_result,
)
from face2vec.cli.exits import DONE, PARTLY
from face2vec.gallery.schema import FILE
from face2vec.report.text import percent

USUAL_FAR = 1e-3
TOLD_ABOVE = 0.02
"""Least distance of a threshold from the usual one that is explained."""


@click.command("verify")
@click.argument("first", metavar="PHOTO", type=QueryPhoto())
@click.argument("second", metavar="PHOTO", type=QueryPhoto())
@click.option(
    "--gallery",
    type=GalleryPlace(exists=True, file_okay=False),
    help="Use this gallery's model and calibration, and its faces to see how alike strangers are.",
)
@model_option
@click.option(
    "--far",
    type=Number(0, 1, min_open=True),
    default=USUAL_FAR,
    show_default=True,
    help="False accept rate of the decision.",
)
@json_line_option
@click.pass_context
def verify_command(
    ctx: click.Context,
    first: str,
    second: str,
    gallery: Place | None,
    model: str | None,
    far: float,
    as_json: bool,
) -> None:
    """Decide whether the largest faces of two photos show the same person.

    The exit code is 0 for the same person and 1 for different people.
    """
    from face2vec.engine import Face2Vec
    from face2vec.session import open_gallery

    if gallery is not None:
        open_gallery(gallery).close()  # a folder without a gallery is an error here
    with Face2Vec(gallery, model=model) as engine:
        found = engine.verify(first, second, far=far)
        calibration = engine.calibration
    if as_json:
        print_result(json.dumps(found.to_dict()))
    else:
        print_result(
            f"{'same person' if found.same else 'different people'}\n"
            f"similarity {found.similarity:.3f}, threshold {found.threshold:.3f} "
            f"(distance {found.distance:.3f}, threshold {found.distance_threshold:.3f})\n"
            f"probability {percent(found.probability)}, if half of such pairs show one person"
        )
        say(f"false accept rate {far:g}, calibrated on {calibration.data}")
        if found.outside:
            say(f"Less certain than stated: {'; '.join(found.outside)}.")
        above = found.threshold - calibration.threshold(far)
        if above >= TOLD_ABOVE:
            say(
                f"The threshold is {above:.3f} higher than for average faces, because different "
                "people with faces like these are more similar."
            )
    ctx.exit(DONE if found.same else PARTLY)


@click.command("calibrate")
@click.argument("gallery", required=False, type=GalleryPlace(exists=True))
@click.option(
    "--people",
    type=FilePath(path_type=Path, exists=True),
    help="Fit a calibration on these photos of known people, and store it in GALLERY.",
)
@click.option(
    "--out",
    type=WrittenFile(),
    help="Write what was fitted to this file, and not to a gallery. Beside a model it is found as "
    "NAME.calibration.json.",
)
@click.option("--model", metavar="KEY_OR_FILE", help="Embedding model, with --out.")
@click.option(
    "--faces",
    type=FilePath(path_type=Path),
    help="Keep the faces of PEOPLE in a gallery in this folder.",
)
@click.option("--data", help="Description of PEOPLE. [default: its name]")
@click.option(
    "--far",
    type=Number(0, 1, min_open=True),
    help="False accept rate that is looked at. [default: 0.001]",
)
@click.option("--gallery", "old_gallery", type=GalleryPlace(exists=True), hidden=True)
@json_line_option
@quiet_option
def calibrate_command(
    gallery: Place | None,
    people: Path | None,
    out: str | None,
    model: str | None,
    faces: Path | None,
    data: str | None,
    far: float | None,
    old_gallery: Place | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show how true false accept rates are in GALLERY, or fit them on known people.

    Without --people no labels are needed: the similarities of the faces of GALLERY show how alike
    strangers are there. Searches and people use this by themselves; nothing is stored.

    With --people, error rates and probabilities are fitted on photos like those that will be
    searched. PEOPLE is a folder with one folder of photos per person, or a text file with a photo
    and a person on each line.
    """
    is_gallery = isinstance(gallery, Path) and (gallery / FILE).exists()
    if gallery and people is None and (old_gallery or (out and not is_gallery)):
        say("calibrate PEOPLE is deprecated; use calibrate GALLERY --people PEOPLE")
        gallery, people = old_gallery, Path(str(gallery))
    elif old_gallery:
        raise click.UsageError("give the gallery without --gallery: calibrate GALLERY --people …")
    if people is None:
        if gallery is None or any(one is not None for one in (out, model, faces, data)):
            raise click.UsageError(
                "give a GALLERY; --out, --model, --faces and --data need --people"
            )
        _look(gallery, USUAL_FAR if far is None else far, as_json)
    elif as_json or far is not None:
        raise click.UsageError("--json and --far are of calibrate GALLERY without --people")
    else:
        _fit(people, gallery, out, model, faces, data, progress=not quiet)


def _look(gallery: Place, far: float, as_json: bool) -> None:
    """Print how true a false accept rate is in a gallery."""
    from face2vec.engine import Face2Vec
    from face2vec.report.reliability import reliability_remarks, reliability_text
    from face2vec.session import open_gallery

    open_gallery(gallery).close()  # a folder without a gallery is an error here
    with Face2Vec(gallery) as engine:
        found = engine.reliability(far=far)
    if as_json:
        print_result(json.dumps(found.figures()))
    else:
        print_result(reliability_text(found))
    for remark in reliability_remarks(found):
        say(remark)


def _fit(
    people: Path,
    gallery: Place | None,
    out: str | None,
    model: str | None,
    faces: Path | None,
    data: str | None,
    progress: bool,
) -> None:
    """Fit a calibration on known people, and store it."""
    from face2vec.engine import Face2Vec
    from face2vec.evaluation.fitting import calibration_on
    from face2vec.evaluation.sets import named_photos
    from face2vec.session import open_gallery

    if (gallery is None) == (out is None) or (gallery is not None and model is not None):
        raise click.UsageError(
            "give either a GALLERY to store the calibration in, or --out, with a --model if it is "
            "not for the default one"
        )
    if gallery is not None:
        with open_gallery(gallery) as opened:
            model = opened.fingerprint.model.origin
    fitted = calibration_on(
        named_photos(people), faces, model=model, data=data or people.name, progress=progress
    )
    if gallery is not None:
        with Face2Vec(gallery) as engine:
            engine.calibrate(fitted)
    if out is not None:
        Path(out).write_text(fitted.to_json() + "\n", encoding="utf-8")
    for far in (1e-1, 1e-2, 1e-3, 1e-4):
        if far >= fitted.fars[-1]:
            say(f"false accept rate {far:g}: similarity {fitted.threshold(far):.3f}")
    say(
        f"Fitted on {fitted.genuine:,} genuine pairs and {fitted.impostor:,} impostor pairs of "
        f"{fitted.people:,} people."
    )
