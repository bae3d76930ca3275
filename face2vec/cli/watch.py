"""The command watch: keeps a gallery current."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from face2vec.cli.common import (
    FilePath,
    Number,
    count,
    json_lines_option,
    model_option,
    out,
    pattern_options,
    runtime_options,
    say,
    verbose_option,
)
from face2vec.report.text import printable

if TYPE_CHECKING:
    from face2vec.watch import Change


def _interrupt(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)


@click.command("watch")
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    metavar="FOLDER...",
    type=FilePath(file_okay=False, objects=True),
)
@click.option(
    "--gallery",
    type=FilePath(path_type=Path),
    required=True,
    help="Folder of the gallery. It is created if it does not exist.",
)
@click.option(
    "--prune", is_flag=True, help="Remove photos from the gallery whose files are deleted."
)
@click.option(
    "--settled",
    type=Number(0.1, 3600),
    default=2.0,
    show_default=True,
    help="Seconds for which a file must stay the same to count as complete.",
)
@pattern_options
@click.option(
    "--notify",
    metavar="URL",
    help="Post signed JSON to this URL when a new photo shows a named person.",
)
@click.option(
    "--at-least",
    type=Number(0, 1),
    default=0.9,
    show_default=True,
    help="With --notify: lowest probability to name somebody.",
)
@model_option
@runtime_options
@json_lines_option
@verbose_option
def watch_command(
    folders: tuple[str, ...],
    gallery: Path,
    prune: bool,
    settled: float,
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    notify: str | None,
    at_least: float,
    model: str | None,
    runtime: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Index FOLDERs, then keep a gallery current as their photos change, until Ctrl-C.

    One line is printed for each photo that is added, changed, moved, copied, unreadable, deleted or
    removed. Files are read when they are complete. Deleted photos stay in the gallery without
    --prune.

    --notify sends data to the URL, and to no other place: who was seen, the path of the photo, the
    box and the probability, signed with the secret in FACE2VEC_NOTIFY_SECRET.
    """
    from face2vec.engine import Face2Vec
    from face2vec.watch import Webhook, watch

    # As Ctrl-C, which waits until what is being stored is stored.
    usual = signal.signal(signal.SIGTERM, _interrupt)
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as when a script starts it with &
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    webhook = None if notify is None else Webhook(notify)
    try:
        with Face2Vec(gallery, model=model, runtime=runtime, threads=threads) as engine:
            changes = watch(
                engine,
                *folders,
                exclude=exclude,
                include=include,
                prune=prune,
                settled=settled,
                webhook=webhook,
                at_least=at_least,
                say=say,
            )
            for change in changes:
                out(json.dumps(change.to_dict()) if as_json else _line(change))
    except KeyboardInterrupt:
        say("stopped")
    finally:
        signal.signal(signal.SIGTERM, usual)
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if webhook is not None:
            left = webhook.close()
            if left or webhook.failed:
                say(f"{count(left + webhook.failed, 'notification')} not sent")


def _line(change: Change) -> str:
    where = printable(change.photo)
    if change.kind == "unreadable":
        return f"unreadable {where}: {printable(change.reason)}"
    if change.kind == "moved":
        where = f"{printable(change.before)} to {where}"
    damage = f" ({printable(change.reason)})" if change.reason else ""
    return f"{change.kind} {where}: {count(change.faces, 'face')}{damage}"
