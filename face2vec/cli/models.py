"""``face2vec models``: the catalogue, downloads, and descriptions of a user's own models."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from face2vec.cli.common import FilePath, json_lines_option, out, quiet_option, say, verbose_option
from face2vec.report.text import columns

if TYPE_CHECKING:
    from face2vec.evaluation.trial import Trial
    from face2vec.models.description import ModelDescription

MODEL_FACTS = (
    *("key", "dimension", "size_bytes", "lfw", "licence", "trained_on", "commercial_use", "url"),
)
OURS = "measured by this project"
TRIALS_SHOWN = 8


@click.group("models", invoke_without_command=True)
@json_lines_option
@verbose_option
@click.pass_context
def models_commands(ctx: click.Context, as_json: bool) -> None:
    """List the embedding models, download one, or describe one of your own.

    Without a command: the models of the catalogue with size, accuracy and terms.
    """
    if ctx.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("--json is for the list; leave it out")
        return
    from face2vec.models.catalogue import CATALOGUE, DEFAULT_MODEL
    from face2vec.models.store import is_on_this_machine, shipped_calibration

    if not as_json:
        _print_table(list(CATALOGUE.values()))
        return
    for model in CATALOGUE.values():
        facts = {name: getattr(model, name) for name in MODEL_FACTS}
        facts |= {
            "default": model.key == DEFAULT_MODEL,
            "on_this_machine": is_on_this_machine(model),
            "calibrated": shipped_calibration(model.key) is not None,
        }
        out(json.dumps(facts))


@models_commands.command("get")
@click.argument("name")
@verbose_option
def get_command(name: str) -> None:
    """Download a model of the catalogue, after printing its terms.

    Prints the path of the file. It is kept in the user's cache folder, or in $FACE2VEC_CACHE, so
    that --model NAME needs no network. With $FACE2VEC_MODELS_URL, the file comes from that folder
    of a mirror.
    """
    from face2vec.models.catalogue import find_model
    from face2vec.models.store import load_model

    find_model(name)  # NAME is a key, not the path of a model
    out(str(load_model(name).path))


@models_commands.command("add")
@click.argument("file", type=FilePath(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--out",
    "described",
    type=FilePath(path_type=Path, dir_okay=False),
    help="Write the description to this .json file. [default: beside FILE]",
)
@click.option("--force", is_flag=True, help="Overwrite an existing description.")
@quiet_option
@verbose_option
def add_command(file: Path, described: Path | None, force: bool, quiet: bool) -> None:
    """Write the description of an ONNX file, from its graph and a trial on drawn people.

    Layout and size are read from the graph. Templates, standardisations of the pixels and orders
    of the channels are tried, and a table shows how well each tells drawn people apart. Compare the
    result with what the authors of the network state.
    """
    from face2vec.evaluation.trial import best_of, try_out, write_description
    from face2vec.models.graph import read_graph
    from face2vec.models.store import published_as

    if file.suffix.lower() != ".onnx":
        raise click.UsageError(f"{file} is not an .onnx file; describe it by hand")
    if described is None:
        described = file.with_suffix(".json")
    if described.suffix.lower() != ".json":
        raise click.UsageError(f"--out is {described}; its name must end in .json")
    if described.exists() and not force:
        raise click.UsageError(f"{described} exists; add --force to overwrite it")
    known = published_as(file)
    if known is not None:
        say(f"{file} is {known.key} of the catalogue and needs no description; use it by its path.")
        return
    graph = read_graph(file)
    say(
        f"{graph.layout}, {graph.input_size}×{graph.input_size} pixels, dimension {graph.dimension}"
    )
    trials = try_out(graph, progress=not quiet)
    chosen = best_of(trials)
    _say_trials(trials, chosen)
    write_description(chosen, file, described)
    out(str(described))
    model = file if described == file.with_suffix(".json") else described
    say(f"Next: face2vec index PHOTOS --gallery indexes/{file.stem} --model {model}")


def _print_table(models: list[ModelDescription]) -> None:
    from face2vec.models.catalogue import DEFAULT_MODEL, size_in_words
    from face2vec.models.store import is_on_this_machine, shipped_calibration

    head = ("model", "dim.", "size", "LFW", "here", "licence")
    rows = [
        (
            model.key,
            str(model.dimension),
            size_in_words(model),
            (model.lfw or "not stated").partition(",")[0] + ("*" if OURS in str(model.lfw) else ""),
            "yes" if is_on_this_machine(model) else "no",
            model.licence,
        )
        for model in models
    ]
    for line in columns([head, *rows]):
        out(line)
    calibrated = [model.key for model in models if shipped_calibration(model.key) is not None]
    _say_wrapped(
        f"The default is {DEFAULT_MODEL}. LFW is the accuracy on Labeled Faces in the Wild: * "
        f"{OURS}, the others as published. Sizes with ~ are estimates. here: whether the "
        "model is on this machine; face2vec models get NAME downloads it."
    )
    _say_wrapped(
        f"With a calibration: {', '.join(calibrated)}. For the others, face2vec calibrate fits one "
        "on photos of people you know."
    )
    terms: dict[tuple[str, str], list[str]] = {}
    for model in models:
        terms.setdefault((model.trained_on, model.commercial_use), []).append(model.key)
    for (trained_on, commercial_use), keys in terms.items():
        _say_wrapped(f"{', '.join(keys)}: training set: {trained_on}. {commercial_use}")


def _say_wrapped(text: str) -> None:
    """Print a paragraph for people, wrapped to the width of the terminal."""
    width = max(shutil.get_terminal_size().columns, 40)
    say("")
    say(textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False))


def _say_trials(trials: list[Trial], chosen: Trial) -> None:
    best = sorted(trials, key=lambda trial: -trial.d_prime)[:TRIALS_SHOWN]
    if chosen not in best:
        best.append(chosen)
    rows = [
        (
            "*" if trial is chosen else "",
            trial.template,
            trial.pixels,
            trial.description.channels,
            f"{trial.d_prime:.2f}",
            f"{trial.auc:.4f}",
        )
        for trial in best
    ]
    for line in columns([("", "template", "pixels", "channels", "d′", "AUC"), *rows]):
        say(line)
    say("* written: the most common choice among those within 5 % of the best")
