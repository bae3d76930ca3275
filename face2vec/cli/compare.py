"""``face2vec compare``: encoders side by side, face2vec's own and others'."""

from __future__ import annotations

from pathlib import Path

import click

from face2vec.cli.common import json_line_option

MEASURED, SOME_NOT = 0, 1
ENCODERS = """\b
ENCODER is one of
  mini, FILE                 face2vec with a model that `models` lists, or of a file
  keras-facenet:KEY          keras-facenet's FaceNet(KEY).extract
  keras-facenet:KEY:FILE     the same with the weights in FILE
  deepface:MODEL             DeepFace's represent, with its default detector
  deepface:MODEL:DETECTOR    the same with another of its detectors
"""


@click.command("compare", epilog=ENCODERS)
@click.argument("encoders", nargs=-1, required=True, metavar="ENCODER...")
@click.option("--lfw", type=click.Path(path_type=Path, exists=True, file_okay=False),
              required=True, help="The folder that `evaluate lfw` takes.")  # fmt: skip
@click.option("--people", type=click.Path(path_type=Path, exists=True),
              help="Rank-1, too, on what `evaluate identification` takes.")  # fmt: skip
@click.option("--runtime", type=click.Choice(("auto", "onnxruntime", "openvino", "cuda")),
              default="auto", show_default=True,
              help="What runs face2vec's own models; other encoders have their own.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="Write compare.html, curves.png and figures.json into this folder.")  # fmt: skip
@json_line_option
@click.option("-q", "--quiet", is_flag=True, help="No bars.")
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
    """Measure encoders on LFW and print them side by side.

    Each is used as its own users use it, with its detector and its crop, in a process of
    its own. One that cannot be had here is said to be "not measured here", and why.
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
        say=None if quiet else lambda words: click.echo(words, err=True),
    )
    click.echo(compared.to_json() if as_json else compared.to_text())
    if not quiet:
        click.echo(f"\n{LEGEND}", err=True)
    if out is not None:
        click.echo(f"Look at {compared.save(out)}", err=True)
    ctx.exit(MEASURED if compared.complete else SOME_NOT)
