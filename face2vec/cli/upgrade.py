"""``face2vec upgrade``: another model for a gallery."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from face2vec.cli.common import json_line_option, reasons
from face2vec.report.html import printable

if TYPE_CHECKING:
    from face2vec.ingest.reembed import UpgradeSummary

DONE, NOT_SWITCHED, INTERRUPTED = 0, 1, 130


@click.command("upgrade")
@click.argument("gallery", type=click.Path(path_type=Path))
@click.option("--model", metavar="KEY_OR_FILE", help="Embedding model that GALLERY gets.")
@click.option("--map", "with_map", is_flag=True,
              help="Switch at once: map the embeddings of faces that are not done.")  # fmt: skip
@click.option("--sample", type=click.IntRange(min=1),
              help="With --map: faces embedded before, to learn from. [default: 2000]")  # fmt: skip
@click.option("--drop-missing", is_flag=True, help="Drop photos whose files are gone or changed.")
@click.option("--abandon", is_flag=True, help="Give up an upgrade that was not finished.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads. [default: all cores]")
@json_line_option
@click.option("-q", "--quiet", is_flag=True, help="No bar and no summary.")
@click.pass_context
def upgrade_command(
    ctx: click.Context,
    gallery: Path,
    model: str | None,
    with_map: bool,
    sample: int | None,
    drop_missing: bool,
    abandon: bool,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Bring GALLERY to another model, with all faces, people and names.

    Its faces are embedded again from their photos. Meanwhile it can be searched and added to
    as before; it changes to the new model at once, when all are done. The same command goes
    on where it was stopped.

    With --map it changes as soon as a sample is done: a map from old embeddings to new ones is
    learned from that, and the others are found by mapped embeddings until theirs are made.
    """
    from face2vec.engine import Face2Vec

    if (model is None) != abandon:
        raise click.UsageError("give either --model or --abandon")
    with Face2Vec(gallery, threads=threads) as engine:
        if model is None:
            _say("given up" if engine.abandon_upgrade() else "there was nothing to give up")
            return
        done = engine.upgrade(
            model,
            with_map=with_map,
            sample=sample,
            drop_missing=drop_missing,
            progress=not quiet,
        )
    if as_json:
        missing = [{"photo": photo, "reason": reason} for photo, reason in done.missing]
        learned = None if done.learned is None else done.learned._asdict()
        facts = {**asdict(done), "missing": missing, "learned": learned, "rate": done.rate}
        click.echo(json.dumps(facts))
    if not quiet:
        _say_summary(done, printable(shlex.quote(str(gallery))))
    if done.interrupted:
        _say("Stopped. What is done is kept: run the same command again to go on.")
        ctx.exit(INTERRUPTED)
    ctx.exit(DONE if done.switched else NOT_SWITCHED)


def _say_summary(done: UpgradeSummary, gallery: str) -> None:
    _say(f"{done.faces:,} faces embedded again, {done.rate:,.1f} a second, {done.seconds:,.1f} s")
    if done.learned is not None:
        learned = done.learned
        _say(
            f"The map was learned from {learned.faces:,} faces. Of {learned.held_out:,} others, "
            f"{learned.found:.1%} find their new embedding by the mapped one; median cosine "
            f"{learned.cosine:.3f}"
        )
        if learned.accuracies is not None:
            old, mapped, new = learned.accuracies
            _say(
                "Same person or not, of those with names: both old "
                f"{old:.1%}, old with new {mapped:.1%}, both new {new:.1%}"
            )
    if done.dropped:
        _say(f"{done.dropped:,} faces dropped with their photos")
    if done.missing:
        _say(f"{len(done.missing):,} photos are not there as they were indexed:")
        for line in reasons(done.missing):
            _say(line)
    if done.mapped:
        _say(f"{done.mapped:,} faces are found by mapped embeddings")
    if done.switched:
        _say(f"{gallery} is of the new model")
    elif not done.interrupted:
        _say(
            f"{gallery} is still of the old model, and what was made is kept. Put the photos "
            "back, or, where they changed, index them again, and go on; or go on with "
            "--drop-missing, or with --map, which keeps such faces by mapped embeddings."
        )


def _say(text: str) -> None:
    click.echo(text, err=True)
