"""``face2vec compare``: encoders of face2vec and of other packages side by side."""

from __future__ import annotations

from pathlib import Path

import click

from face2vec.cli.common import FilePath, command_line, json_line_option, runtime_option, say
from face2vec.cli.common import out as print_result
from face2vec.cli.exits import DONE, PARTLY

ENCODERS = """\b
ENCODER is one of
  mini, FILE                 face2vec with a model of the catalogue, or a file
  keras-facenet:KEY          FaceNet(KEY).extract of keras-facenet
  keras-facenet:KEY:FILE     the same with the weights in FILE
  deepface:MODEL             represent of DeepFace, with its default detector
  deepface:MODEL:DETECTOR    the same with another detector of DeepFace
"""


@click.command("compare", epilog=ENCODERS)
@click.argument("encoders", nargs=-1, required=True, metavar="ENCODER...")
@click.option(
    "--lfw",
    type=FilePath(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="The folder for 'evaluate lfw'.",
)
@click.option(
    "--people",
    type=FilePath(path_type=Path, exists=True),
    help="Also measure rank-1 on photos for 'evaluate identification'.",
)
@runtime_option
@click.option(
    "--out",
    type=FilePath(path_type=Path, file_okay=False),
    help="Write compare.html, curves.png and figures.json to this folder.",
)
@json_line_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress bars.")
@click.pass_context
def compare_command(
    ctx: click.Context,
    encoders: tuple[str, ...],
    lfw: Path,
    people: Path | None,
    runtime: str,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure encoders on LFW and print the results side by side.

    Each encoder runs as its own package runs it, with its own detector and crop, in a separate
    process. One that is not available is listed as "not measured here", with the reason.
    """
    from face2vec.evaluation.comparison import LEGEND, compare
    from face2vec.evaluation.encoders import check_encoder
    from face2vec.evaluation.sets import lfw_pairs, named_photos, photos_in

    names = list(dict.fromkeys(encoders))
    for name in names:
        check_encoder(name)
    compared = compare(
        names,
        photos_in(lfw),
        lfw_pairs(lfw),
        None if people is None else named_photos(people),
        runtime=runtime,
        say=None if quiet else say,
    )
    print_result(compared.to_json() if as_json else compared.to_text())
    if not quiet:
        say(f"\n{LEGEND}")
    if out is not None:
        say(f"See {compared.save(out, command_line())}")
    ctx.exit(DONE if compared.complete else PARTLY)
