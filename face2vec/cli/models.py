"""``face2vec models``: the catalogue."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from face2vec.cli.common import json_lines_option, out, say, verbose_option
from face2vec.report.text import columns

if TYPE_CHECKING:
    from face2vec.models.description import ModelDescription

MODEL_FACTS = (
    *("key", "dimension", "size_bytes", "lfw", "licence", "trained_on", "commercial_use", "url"),
)


@click.command("models")
@json_lines_option
@verbose_option
def models_command(as_json: bool) -> None:
    """List the embedding models of the catalogue, with size, accuracy and terms."""
    from face2vec.models.catalogue import CATALOGUE, DEFAULT_MODEL
    from face2vec.models.store import is_on_this_machine

    here = {model.key: is_on_this_machine(model) for model in CATALOGUE.values()}
    if as_json:
        for model in CATALOGUE.values():
            facts = {name: getattr(model, name) for name in MODEL_FACTS}
            facts |= {"default": model.key == DEFAULT_MODEL, "on_this_machine": here[model.key]}
            out(json.dumps(facts))
        return
    head = ("model", "dimension", "size", "LFW", "licence", "trained on", "on this machine")
    rows = [
        (
            model.key,
            str(model.dimension),
            _size(model),
            (model.lfw or "not stated").partition(",")[0],
            model.licence,
            model.trained_on,
            "yes" if here[model.key] else "no",
        )
        for model in CATALOGUE.values()
    ]
    for line in columns([head, *rows]):
        out(line)
    say(
        f"\nThe default is {DEFAULT_MODEL}. LFW is the accuracy that was published with the "
        "weights; that of mini was measured by this project. Sizes marked with ~ follow from the "
        "number of weights."
    )
    for model in CATALOGUE.values():
        say(f"{model.key}: {model.commercial_use}")


def _size(model: ModelDescription) -> str:
    from face2vec.models.catalogue import FACENET_WEIGHTS

    if model.size_bytes is not None:
        return f"{model.size_bytes / 1e6:.1f} MB"
    return f"~{4 * FACENET_WEIGHTS[model.dimension] / 1e6:.0f} MB"
