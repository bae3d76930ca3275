"""``face2vec upgrade``: change a gallery to another model."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from face2vec.cli.common import FilePath, count, json_line_option, out, reasons, say, threads_option
from face2vec.cli.exits import DONE, INTERRUPTED, PARTLY
from face2vec.report.text import printable

if TYPE_CHECKING:
    from face2vec.ingest.reembed import UpgradeSummary


@click.command("upgrade")
@click.argument("gallery", type=FilePath(path_type=Path))
@click.option(
    "--model", metavar="KEY_OR_FILE", help="The new model: a key that 'models' lists, or a file."
)
@click.option(
    "--map",
    "with_map",
    is_flag=True,
    help="Switch early: use mapped embeddings for faces that are not done yet.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    help="With --map: faces to learn the map from. [default: 2000]",
)
@click.option(
    "--drop-missing", is_flag=True, help="Remove photos whose files are missing or have changed."
)
@click.option("--abandon", is_flag=True, help="Delete an unfinished upgrade.")
@threads_option
@json_line_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress bar and no summary.")
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
    """Change a gallery to another model, with all faces, people and names.

    The faces are embedded again from their photos. Meanwhile the gallery can be searched and added
    to as before. It switches to the new model in one step, when all faces are done. The same
    command continues where it was stopped.

    With --map it switches as soon as a sample is done: a map from old to new embeddings is learned
    from the sample, and all other faces have mapped embeddings until theirs are computed.
    """
    from face2vec.engine import Face2Vec

    if (model is None) != abandon:
        raise click.UsageError("give either --model or --abandon")
    with Face2Vec(gallery, threads=threads) as engine:
        if model is None:
            abandoned = engine.abandon_upgrade()
            say("upgrade abandoned" if abandoned else "no upgrade is in progress")
            return
        done = engine.upgrade(
            model,
            with_map=with_map,
            sample=sample,
            drop_missing=drop_missing,
            progress=not quiet,
        )
    if as_json:
        out(json.dumps(done.to_dict()))
    if not quiet:
        say_summary(done, printable(shlex.quote(str(gallery))))
    if done.interrupted:
        say("Stopped. Finished work is kept: run the same command again to continue.")
        ctx.exit(INTERRUPTED)
    ctx.exit(DONE if done.switched else PARTLY)


def say_summary(done: UpgradeSummary, gallery: str) -> None:
    """Print the summary of an upgrade for people."""
    say(
        f"{count(done.faces, 'face')} embedded again, {done.rate:,.1f} a second, "
        f"{done.seconds:,.1f} s"
    )
    if done.learned is not None:
        learned = done.learned
        say(
            f"The map was learned from {learned.faces:,} faces. Of {learned.held_out:,} other "
            f"faces, {learned.found:.1%} have their own new embedding nearest to the mapped one; "
            f"median cosine {learned.cosine:.3f}"
        )
        if learned.accuracies is not None:
            old, mapped, new = learned.accuracies
            say(
                f"Verification accuracy among named people: old with old {old:.1%}, mapped with "
                f"new {mapped:.1%}, new with new {new:.1%}"
            )
    if done.dropped:
        say(f"{count(done.dropped, 'face')} removed with their photos")
    if done.missing:
        say(f"{count(len(done.missing), 'photo')} missing or changed since they were indexed:")
        for line in reasons(done.missing):
            say(line)
    if done.mapped:
        say(f"{count(done.mapped, 'face')} with a mapped embedding")
    if done.switched:
        say(f"{gallery} has the new model")
    elif not done.interrupted:
        say(
            f"{gallery} still has the old model; the new embeddings are kept. Restore the photos, "
            "or index those that have changed, and run the same command again. Or run it with "
            "--drop-missing, or with --map, which keeps such faces with mapped embeddings."
        )
