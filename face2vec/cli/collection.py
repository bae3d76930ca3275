"""Commands that fill and maintain a gallery, from index to rebuild, and the demo."""

from __future__ import annotations

import json
import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from face2vec.cli.common import (
    FilePath,
    GalleryPlace,
    Number,
    OutputFile,
    Place,
    count,
    count_files,
    gallery_argument,
    json_line_option,
    json_lines_option,
    model_option,
    opened,
    out,
    pattern_options,
    photos_argument,
    quiet_option,
    reasons,
    results_alone,
    runtime_options,
    say,
    verbose_option,
)
from face2vec.cli.exits import DONE, INTERRUPTED, PARTLY
from face2vec.detection import DETECTORS, TURNED
from face2vec.files import is_object, object_address
from face2vec.index.policy import CHOICES, FORMER_NAMES
from face2vec.photos.discover import PAIRS
from face2vec.photos.formats import TOO_MANY_PIXELS
from face2vec.report.text import printable
from face2vec.types import STATUSES

if TYPE_CHECKING:
    from face2vec.detection.select import OwnSettings
    from face2vec.gallery.rows import Removed
    from face2vec.ingest.build import BuildSummary


class IndexKindName(click.Choice[str]):
    """A kind of index; former names are accepted."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The kind, or a usage error."""
        return super().convert(FORMER_NAMES.get(value, value), param, ctx)


class ObjectAddress(click.ParamType):  # type: ignore[type-arg]
    """An address in object storage."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address, or a usage error.

        Raises:
            SettingsError: it has a password in it, or names nothing.
        """
        if not is_object(value):
            self.fail(
                f"{value!r} is no address in object storage, such as s3://BUCKET/FOLDER; paths on "
                "this machine need no permission.",
                param,
                ctx,
            )
        return object_address(value)


class Statuses(click.ParamType):  # type: ignore[type-arg]
    """Statuses of photos, separated by commas."""

    name = "statuses"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The statuses, or a usage error."""
        if isinstance(value, tuple):
            return value
        words = tuple(word.strip() for word in value.split(","))
        for word in words:
            if word not in STATUSES:
                self.fail(f"{word!r} is not one of {', '.join(STATUSES)}.", param, ctx)
        return words


@click.command("index")
@click.argument("photos", nargs=-1, required=True)
@click.option(
    "--gallery",
    type=GalleryPlace(),
    required=True,
    help="Folder of the gallery, such as indexes/family, or milvus://HOST:PORT/ARCHIVE. It is "
    "created if it does not exist.",
)
@model_option
@click.option(
    "--min-face",
    type=Number(min=0, min_open=True),
    help="Smallest face: pixels, or below 1 a fraction of the photo's shorter side.",
)
@click.option(
    "--max-side",
    type=click.IntRange(min=0),
    help="Scale larger photos down to this side in pixels for detection; 0 for full size.",
)
@click.option(
    "--detector",
    type=click.Choice(DETECTORS),
    help="What finds the faces; mtcnn for a new gallery, unless this says yunet.",
)
@click.option(
    "--try-turned",
    type=click.Choice(TURNED),
    is_flag=False,
    flag_value="auto",
    help="Search a photo again, turned in steps of 45° and mirrored: auto, which is what the "
    "option alone means, if it has no sure face.",
)
@click.option(
    "--index",
    "kind",
    type=IndexKindName(CHOICES),
    default="auto",
    show_default=True,
    help="Kind of index.",
)
@pattern_options
@click.option(
    "--pairs",
    type=click.Choice(PAIRS),
    default=PAIRS[0],
    show_default=True,
    help="Of a camera raw file and the JPEG of the same name beside it, take the JPEG, or both.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    help="Refuse photos with more pixels. [default: 200,000,000]",
)
@click.option(
    "--unreadable-to",
    type=OutputFile("w", encoding="utf-8", errors="surrogateescape", lazy=False),
    help="Write each photo of PHOTOS that is unreadable now and its reason to this file, separated "
    "by a tab.",
)
@click.option(
    "--again",
    type=Statuses(),
    default=(),
    metavar="STATUS[,STATUS]",
    help=f"Read unchanged photos again that are {', '.join(STATUSES)}; see 'photos'. Those with "
    "faces keep them; only their date is read.",
)
@click.option(
    "--ray",
    metavar="auto|HOST:PORT",
    help="Encode on the machines of this Ray cluster, which this machine belongs to.",
)
@runtime_options
@json_line_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress bar and no summary.")
@verbose_option
@click.pass_context
def index_command(
    ctx: click.Context,
    photos: tuple[str, ...],
    gallery: Place,
    model: str | None,
    min_face: float | None,
    max_side: int | None,
    detector: str | None,
    try_turned: str | None,
    kind: str,
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    pairs: str,
    max_pixels: int | None,
    unreadable_to: IO[str] | None,
    again: tuple[str, ...],
    ray: str | None,
    runtime: str,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Add all faces of PHOTOS to a gallery, and the people in videos.

    PHOTOS are folders (with all their subfolders), files, glob patterns, @FILE for a text file of
    paths, or - for paths on standard input. Unchanged photos are skipped, so the same command
    continues where it was stopped.

    In folders, hidden files are left out, and what other programs keep beside photos: thumbnails,
    previews, deleted files. A file .face2vecignore in a folder has further patterns.
    """
    from face2vec.engine import Face2Vec
    from face2vec.photos.decode import MAX_PIXELS

    with nullcontext() if ray is None else results_alone():
        with Face2Vec(
            gallery,
            model=model,
            detector=_detector(gallery, detector, min_face, max_side, try_turned),
            runtime=runtime,
            threads=threads,
            index=kind,
            max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
            ray=ray,
        ) as engine:
            summary = engine.add(
                *photos,
                exclude=exclude,
                include=include,
                again=again,
                pairs=pairs,
                progress=not quiet,
            )
        if unreadable_to is not None:
            for path, reason in summary.unreadable:
                unreadable_to.write(f"{_field(path)}\t{_field(reason)}\n")
        if as_json:
            out(json.dumps(summary.to_dict()))
    if not quiet:
        say_summary(summary, gallery)
    if summary.interrupted:
        say("Stopped. Finished work is kept: run the same command again to continue.")
        ctx.exit(INTERRUPTED)
    ctx.exit(PARTLY if summary.unreadable else DONE)


@click.command("info")
@gallery_argument
@json_line_option
@verbose_option
def info_command(gallery: Place, as_json: bool) -> None:
    """Describe a gallery: its photos, faces, people, model and index."""
    with opened(gallery) as engine:
        facts = engine.info()
    if as_json:
        out(json.dumps(facts))
    else:
        for line in info_lines(facts):
            out(line)


@click.command("photos")
@gallery_argument
@click.option(
    "--status",
    "statuses",
    type=Statuses(),
    default=(),
    metavar="STATUS[,STATUS]",
    help=f"List only photos that are {', '.join(STATUSES)}.",
)
@click.option(
    "--from",
    "since",
    metavar="DATE",
    help="List only photos taken then or later: a year, month or day such as 2024-05.",
)
@click.option("--to", "until", metavar="DATE", help="List only photos taken then or earlier.")
@json_lines_option
@verbose_option
def photos_command(
    gallery: Place,
    statuses: tuple[str, ...],
    since: str | None,
    until: str | None,
    as_json: bool,
) -> None:
    """List the photos and videos of a gallery, what became of each, and when it was taken.

    A damaged one was read in part; its reason says what is missing. Dates are those of the camera,
    without a time zone.
    """
    from face2vec.photos.extras import VIDEO, kind_by_name

    with opened(gallery) as engine:
        photos = engine.photos(*statuses, since=since, until=until)
    dated = any(one.taken for one in photos)
    for photo, status, reason, taken in photos:
        if as_json:
            facts = {"photo": photo, "status": status, "reason": reason, "taken": taken or None}
            out(json.dumps(facts))
        else:
            when = f"{taken[:16].replace('T', ' '):<16}  " if dated else ""
            why = f" ({printable(reason)})" * bool(reason)
            out(f"{status:<10}  {when}{printable(photo)}{why}")
    say(count_files(len(photos), sum(kind_by_name(one.photo) == VIDEO for one in photos)))


@click.command("remove")
@gallery_argument
@photos_argument
@verbose_option
def remove_command(gallery: Place, photos: tuple[str, ...]) -> None:
    """Remove photos from a gallery; the files are not touched.

    A folder stands for all photos in it.
    """
    with opened(gallery) as engine:
        _say_removed(engine.remove(*photos))


@click.command("prune")
@gallery_argument
@click.option("--force", is_flag=True, help="Even if a whole folder is missing, or is empty now.")
@verbose_option
def prune_command(gallery: Place, force: bool) -> None:
    """Remove photos whose files no longer exist from a gallery."""
    with opened(gallery) as engine:
        _say_removed(engine.prune(force=force))


@click.command("check")
@gallery_argument
@verbose_option
@click.pass_context
def check_command(ctx: click.Context, gallery: Place) -> None:
    """Read a whole gallery and report damage, one line per problem."""
    with opened(gallery) as engine:
        problems = engine.check()
    for problem in problems:
        out(problem)
    say(f"{count(len(problems), 'problem')} found" if problems else "no problems found")
    ctx.exit(PARTLY if problems else DONE)


@click.command("copy")
@gallery_argument
@click.argument("to", type=GalleryPlace())
@quiet_option
@json_line_option
@verbose_option
def copy_command(gallery: Place, to: Place, quiet: bool, as_json: bool) -> None:
    """Copy a gallery to another place, and compare both.

    GALLERY and TO are folders, or milvus://HOST:PORT/ARCHIVE. Embeddings stay equal bit for bit.
    Edits that 'undo' could take back are not copied. The same command continues an interrupted
    copy.
    """
    with opened(gallery) as engine:
        done = engine.copy_to(to, progress=not quiet)
    if as_json:
        out(json.dumps(done.to_dict()))
    known = f", {done.known:,} of them by an earlier run" if done.known else ""
    say(
        f"{count(done.photos, 'photo')}{known}, {count(done.faces, 'face')} and "
        f"{count(done.people, 'person', 'people')} copied; both galleries have the checksum "
        f"{done.checksum[:16]}"
    )


@click.command("rebuild")
@gallery_argument
@verbose_option
def rebuild_command(gallery: Place) -> None:
    """Rebuild the index of a gallery from its embeddings."""
    with opened(gallery) as engine:
        engine.rebuild()
    say("index rebuilt")


@click.command("demo")
@click.argument("folder", type=FilePath(path_type=Path, file_okay=False), default="face2vec-demo")
@click.option(
    "--people",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="How many people to draw.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Another seed draws other people.",
)
@model_option
def demo_command(folder: Path, people: int, seed: int, model: str | None) -> None:
    """Draw people who do not exist, index their photos and search each of them.

    All files go to FOLDER, by default face2vec-demo. No network is needed.
    """
    from face2vec.demo import SHOWN_QUERIES, demo

    done = demo(folder, people=people, seed=seed, model=model, say=say)
    for result in done.results[:SHOWN_QUERIES]:
        say(f"\n{result.title}\n{result.matches.to_text(3)}")
    say(
        f"\n{count(done.photos, 'photo')}, {count(done.faces, 'face')}: "
        f"{done.right} of {count(people, 'query', 'queries')} found the right person first, "
        f"{done.seconds:.0f} s"
    )
    say(f"See {done.picture}\nSearch again: face2vec search {done.gallery} PHOTO")


@click.command("allow")
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]...", type=ObjectAddress())
@verbose_option
def allow_command(addresses: tuple[str, ...]) -> None:
    """Allow photos to be read from object storage; without an ADDRESS, list what is allowed.

    An ADDRESS such as s3://bucket/2024 stands for all that is below it. 'index' and 'enroll' allow
    the addresses that they are given. Those that only a gallery, a list or a table names are not
    read before, for it can come from somebody else.
    """
    from face2vec.photos.allowed import allow, allowed, allowed_file

    allow(addresses)
    for address in allowed() if not addresses else ():
        out(printable(address))
    say(f"kept in {printable(str(allowed_file()))}; delete a line there to take it back")


COLLECTION_COMMANDS = (
    index_command,
    info_command,
    photos_command,
    remove_command,
    prune_command,
    check_command,
    rebuild_command,
    copy_command,
    allow_command,
    demo_command,
)


def _detector(
    gallery: Place,
    name: str | None,
    min_face: float | None,
    max_side: int | None,
    try_turned: str | None,
) -> OwnSettings | None:
    """The settings that were given, of the gallery's detector; None if none was."""
    from face2vec.detection.select import named_settings
    from face2vec.errors import GalleryNotFoundError
    from face2vec.session import open_gallery

    given: dict[str, Any] = {}
    if min_face is not None:
        given["min_face_size"] = min_face
    if max_side is not None:
        given["max_side"] = max_side or None
    if try_turned is not None:
        given["try_turned"] = try_turned
    if not given and name is None:
        return None
    if name is None:
        try:
            with open_gallery(gallery) as there:
                name = there.fingerprint.detector.name
        except GalleryNotFoundError:
            name = DETECTORS[0]
    return named_settings(name, **given)


def _setting_words(name: str, value: Any) -> str:
    """The value of a detector's setting as its option has it."""
    if name == "try_turned" and isinstance(value, bool):
        return TURNED[value]
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def say_summary(summary: BuildSummary, gallery: Place) -> None:
    """Print the summary of a build for people."""
    if not summary.photos and not summary.interrupted:
        say("no photos found")
        _say_left_out(summary)
        return
    parts = [f"{summary.added:,} new", f"{summary.unchanged:,} unchanged"]
    if summary.copies:
        parts.append(count(summary.copies, "copy", "copies"))
    if summary.forgotten:
        parts.append(f"{summary.forgotten:,} with forgotten people only")
    if summary.unreadable:
        parts.append(f"{len(summary.unreadable):,} unreadable")
    say(f"{count_files(summary.photos, summary.videos)}: {', '.join(parts)}")
    _say_left_out(summary)
    noun = ("file", "files") if summary.videos else ("photo", "photos")
    faceless = count(summary.no_face, *(f"new {word}" for word in noun))
    say(f"{count(summary.faces, 'new face')}; {faceless} without a face")
    if summary.unreadable:
        say(f"{count(len(summary.unreadable), *noun)} could not be read:")
        for line in reasons(summary.unreadable):
            say(line)
        if any(reason == TOO_MANY_PIXELS for _, reason in summary.unreadable):
            say("--max-pixels raises the limit of pixels; larger photos need more memory")
    if summary.damaged:
        say(f"{count(len(summary.damaged), *noun)} could be read in part:")
        for line in reasons(summary.damaged):
            say(line)
    say(f"{summary.rate:,.1f} {noun[1]} a second, {summary.seconds:,.1f} s")
    if not summary.interrupted:
        say(f"Search it: face2vec search {printable(shlex.quote(str(gallery)))} PHOTO")


def _say_left_out(summary: BuildSummary) -> None:
    from face2vec.photos.extras import KINDS

    for key, number in summary.unread.items():
        kind = KINDS[key]
        say(f"not read: {number:,} {kind.name if number > 1 else kind.name[:-1]}; {kind.advice}")
    if summary.paired:
        raw = count(summary.paired, "camera raw file")
        say(f"left out: {raw} beside a JPEG of the same name (--pairs both takes both)")
    if summary.left_out:
        most = sorted(summary.left_out.items(), key=lambda one: -one[1])
        patterns = ", ".join(f"{number:,} × {pattern}" for pattern, number in most)
        say(f"left out, by pattern: {patterns} (--include takes them)")


def info_lines(facts: dict[str, Any]) -> list[str]:
    """What `Face2Vec.info` returns, as lines for people."""
    made = facts["made_with"]
    model, detector, name = made["model"], made["detector"], made.get("detector_name", "mtcnn")
    photos = [f"{facts['contents']:,} different"]
    photos += [f"{facts['no_face']:,} without a face"] if facts["no_face"] else []
    photos += [f"{facts['unreadable']:,} unreadable"] if facts["unreadable"] else []
    people = f"{count(facts['people'], 'person', 'people')}, {facts['named']:,} named"
    origin = "" if model["origin"] == model["key"] else f", from {printable(model['origin'])}"
    runs_on = [
        f"{runtime['name']} ({runtime['precision']}, {count(runtime['threads'], 'thread')})"
        for runtime in (facts["runtime"], facts["detector_runtime"])
    ]
    settings = ", ".join(
        f"{k.replace('_', ' ')} {_setting_words(k, v)}" for k, v in detector.items()
    )
    lines = [
        f"Gallery    {printable(facts['gallery'])}, {_megabytes(facts['bytes'])}",
        f"Photos     {facts['photos']:,}: {', '.join(photos)}",
        f"Faces      {facts['faces']:,}",
        f"People     {people}",
        f"Model      {printable(model['key'])}, dimension {facts['dimension']}{origin}",
        f"Detector   {printable(name)}, version {made['cascade']}: {printable(settings)}",
        f"Index      {facts['index']}, {_megabytes(facts['index_bytes'])}{_recall(facts)}",
        f"Runtime    {runs_on[0]}; detection: {runs_on[1]}",
    ]
    if facts["mapped"]:
        lines.append(f"Mapped     {count(facts['mapped'], 'face')} with a mapped embedding")
    if facts["upgrade_begun"] is not None:
        begun = facts["upgrade_begun"]
        lines.append(
            f"Upgrade    to {printable(begun['model'])} in progress, "
            f"{count(begun['faces'], 'face')} done"
        )
    return lines


def _recall(facts: dict[str, Any]) -> str:
    """How many of the nearest faces an approximate index finds; nothing for an exact one."""
    if facts["index_recall"] is None:
        return ""
    of = count(facts["index_recall_faces"], "face of yours", "faces of yours")
    return f"; recall@10 {facts['index_recall']:.3f} on {of}"


def _say_removed(removed: Removed) -> None:
    say(f"{count(removed.photos, 'photo')} and {count(removed.faces, 'face')} removed")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _field(text: str) -> str:
    """Text without control characters, such as tabs and line ends."""
    return printable(text, keep_bytes=True)
