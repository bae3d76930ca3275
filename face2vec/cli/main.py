"""The command line: thin commands over `face2vec.Face2Vec`.

JSON goes to stdout and nothing else does; words for people go to stderr. Heavy
packages are imported inside the commands, so that ``--help`` is immediate.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from face2vec.cli.common import Number, reasons
from face2vec.cli.compare import compare_command
from face2vec.cli.evaluate import evaluate_commands
from face2vec.cli.lab import lab_commands
from face2vec.cli.people import PEOPLE_COMMANDS
from face2vec.cli.train import train_command
from face2vec.cli.upgrade import upgrade_command
from face2vec.cli.verify import calibrate_command, verify_command
from face2vec.errors import Face2VecError, NoFaceError, PhotoError
from face2vec.files import ON_WINDOWS
from face2vec.report.html import columns, printable

if TYPE_CHECKING:
    from face2vec.detection.mtcnn import DetectorSettings
    from face2vec.engine import Face2Vec
    from face2vec.ingest.build import BuildSummary
    from face2vec.models import ModelDescription
    from face2vec.pose import By
    from face2vec.report.matches import Found

DONE, SOME, USAGE, ERROR, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = {
    DONE: "done",
    SOME: "index: done, but some photos could not be read\n"
    "       search: no match, or no face in the query\n"
    "       check: problems found\n"
    "       verify: two people\n"
    "       identify: somebody unknown, or no face\n"
    "       upgrade: photos are missing, still of the old model\n"
    "       compare: an encoder could not be measured here",
    USAGE: "the command was not understood",
    ERROR: "an error, told on stderr (with FACE2VEC_DEBUG=1 also where it arose)",
    INTERRUPTED: "stopped by Ctrl-C; what is done is kept",
}
EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {EXIT_CODES[code]}" for code in EXIT_CODES)

RUNTIMES = ("auto", "onnxruntime", "openvino", "cuda")
INDEXES = ("auto", "exact", "hnsw", "ivf", "ivfpq")
MODEL_FACTS = (
    *("key", "dimension", "size_bytes", "lfw", "licence", "trained_on", "commercial_use", "url"),
)

Command = TypeVar("Command", bound=Callable[..., Any])


class Commands(click.Group):
    """The group of commands; turns what they raise into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that ``ctx`` names."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except OSError as error:
            if not _reader_has_ended(error):
                _say_error(error)
                ctx.exit(ERROR)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(DONE)
        except KeyboardInterrupt:
            _say("face2vec: interrupted")
            ctx.exit(INTERRUPTED)
        except Face2VecError as error:
            _say_error(error)
            ctx.exit(ERROR)


def _reader_has_ended(error: OSError) -> bool:
    """Whether who reads standard output, such as `head`, has what it wanted.

    Windows reports that as an invalid argument, of a file without a name.
    """
    if isinstance(error, BrokenPipeError):
        return True
    return ON_WINDOWS and error.errno == errno.EINVAL and error.filename is None


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from face2vec import __version__

        click.echo(f"face2vec {__version__}")
        ctx.exit()


def _verbose(_ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        logger = logging.getLogger("face2vec")
        logger.setLevel(logging.INFO)
        if not logger.handlers:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
            logger.addHandler(handler)


verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_verbose,
    help="Tell on stderr what is done.",
)
gallery_argument = click.argument("gallery", type=click.Path(path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout.")


def runtime_options(command: Command) -> Command:
    """Add --runtime and --threads."""
    command = click.option(
        "--threads", type=click.IntRange(min=1), help="Processor threads. [default: all cores]"
    )(command)
    return click.option(
        "--runtime",
        type=click.Choice(RUNTIMES),
        default="auto",
        show_default=True,
        help="What runs the networks.",
    )(command)


@click.group(
    "face2vec",
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
@verbose_option
def main() -> None:
    """Find a face again in a photo collection."""


for one in (
    *(train_command, evaluate_commands, compare_command, lab_commands),
    *(verify_command, calibrate_command, *PEOPLE_COMMANDS, upgrade_command),
):
    main.add_command(one)


@main.command("demo")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default="face2vec-demo")
@click.option("--people", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--model", metavar="KEY_OR_FILE", help="Embedding model. [default: mini]")
def demo_command(folder: Path, people: int, seed: int, model: str | None) -> None:
    """Draw people who do not exist, index their photos and find each of them again.

    Everything goes into FOLDER, face2vec-demo if none is named. Needs no network.
    """
    from face2vec.demo import SHOWN_QUERIES, demo

    done = demo(folder, people=people, seed=seed, model=model, say=_say)
    for found in done.found[:SHOWN_QUERIES]:
        _say(f"\n{found.title}\n{found.matches.to_text(3)}")
    _say(
        f"\n{_count(done.photos, 'photo')}, {_count(done.faces, 'face')}, "
        f"{done.right} of {_count(people, 'new photo')} found the right person first, "
        f"{done.seconds:.0f} s"
    )
    _say(f"Look at {done.picture}\nSearch on: face2vec search {done.gallery} PHOTO")


@main.command("index")
@click.argument("photos", nargs=-1, required=True)
@click.option(
    "--gallery",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the gallery, such as indexes/family; made if it is not there.",
)
@click.option(
    "--model", metavar="KEY_OR_FILE", help="Embedding model: a key that `models` lists, or a file."
)
@click.option(
    "--min-face",
    type=Number(min=0, min_open=True),
    help="Smallest face: pixels, or below 1 a fraction of the photo's shorter side.",
)
@click.option(
    "--max-side",
    type=click.IntRange(min=0),
    help="Larger photos are searched for faces at this size in pixels; 0 for full size.",
)
@click.option("--try-turned", is_flag=True, help="Where no face is found, try the photo turned.")
@click.option(
    "--index",
    "kind",
    type=click.Choice(INDEXES),
    default="auto",
    show_default=True,
    help="Kind of index.",
)
@click.option("--max-pixels", type=click.IntRange(min=1), help="Photos with more are not read.")
@click.option(
    "--unreadable-to",
    type=click.File("w", encoding="utf-8", errors="surrogateescape", lazy=False),
    help="Write each unreadable photo and its reason here, with a tab between.",
)
@runtime_options
@json_option
@click.option("-q", "--quiet", is_flag=True, help="No bar and no summary.")
@verbose_option
@click.pass_context
def index_command(
    ctx: click.Context,
    photos: tuple[str, ...],
    gallery: Path,
    model: str | None,
    min_face: float | None,
    max_side: int | None,
    try_turned: bool,
    kind: str,
    max_pixels: int | None,
    unreadable_to: IO[str] | None,
    runtime: str,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Add PHOTOS to a gallery.

    PHOTOS are folders (searched to the bottom), files, glob patterns, @FILE for a text
    file of paths, or - for paths on stdin. Photos that the gallery has already are
    passed over, so the same command goes on where it was stopped.
    """
    from face2vec.engine import Face2Vec
    from face2vec.photos.decode import MAX_PIXELS

    with Face2Vec(
        gallery,
        model=model,
        detector=_detector(min_face, max_side, try_turned),
        runtime=runtime,
        threads=threads,
        index=kind,
        max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
    ) as engine:
        summary = engine.add(*photos, progress=not quiet)
    if unreadable_to is not None:
        for path, reason in summary.unreadable:
            unreadable_to.write(f"{_tsv(path)}\t{_tsv(reason)}\n")
    if as_json:
        click.echo(json.dumps(_summary_dict(summary)))
    if not quiet:
        _say_summary(summary, gallery)
    if summary.interrupted:
        _say("Stopped. What is done is kept: run the same command again to go on.")
        ctx.exit(INTERRUPTED)
    ctx.exit(SOME if summary.unreadable else DONE)


@main.command("search")
@gallery_argument
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@click.option(
    "-k", type=click.IntRange(min=1), default=10, show_default=True, help="Matches for each face."
)
@click.option("--min-similarity", type=Number(-1, 1), help="Leave out matches below this cosine.")
@click.option(
    "--far",
    type=Number(0, 1, min_open=True),
    help="Leave out matches that a larger share of pairs of two people reaches.",
)
@click.option(
    "--one-person",
    is_flag=True,
    help="All PHOTOs show one person: search once, with the largest face of each.",
)
@click.option(
    "--layout",
    type=click.Choice(("pose", "framing")),
    help="Find faces turned alike, or at the same place in their photos, whoever they are.",
)
@click.option("--person", metavar="WHO", help="With --layout: faces of this person only.")
@json_option
@click.option(
    "--html", "page", type=click.Path(dir_okay=False), help="Write a page with the matches."
)
@click.option(
    "--save", "picture", type=click.Path(dir_okay=False), help="Draw the matches, .png or .jpg."
)
@runtime_options
@verbose_option
@click.pass_context
def search_command(
    ctx: click.Context,
    gallery: Path,
    photos: tuple[str, ...],
    k: int,
    min_similarity: float | None,
    far: float | None,
    one_person: bool,
    layout: By | None,
    person: str | None,
    as_json: bool,
    page: str | None,
    picture: str | None,
    runtime: str,
    threads: int | None,
) -> None:
    """Find the faces of each PHOTO in GALLERY.

    Every face in a PHOTO is searched for and gets its own list of matches.
    """
    from face2vec.report import matches as results

    if (layout and one_person) or (person and not layout):
        raise click.UsageError("--person needs --layout, and --one-person goes without")
    all_found: list[Found] = []
    unreadable = False
    with _existing(gallery, runtime, threads) as engine:
        for query in [list(photos)] if one_person else photos:
            try:
                if layout and isinstance(query, str):
                    found = engine.search_layout(
                        query, k, by=layout, person=person, min_similarity=min_similarity, far=far
                    )
                else:
                    found = engine.search(query, k, min_similarity=min_similarity, far=far)
            except PhotoError as error:
                _say_error(error)
                unreadable = True
                continue
            except NoFaceError:
                found = []
            if not found:
                names = query if isinstance(query, str) else ", ".join(query)
                _say(f"{printable(names)}: no face found")
            for one in found:
                _out(one.to_json() if as_json else f"{one.title}\n{one.matches.to_text()}\n")
            all_found += found
    if page is not None:
        results.save_html(all_found, page)
    if picture is not None and all_found:
        results.save_grid(all_found, picture)
    if unreadable:
        ctx.exit(ERROR)
    ctx.exit(DONE if any(one.matches for one in all_found) else SOME)


@main.command("info")
@gallery_argument
@json_option
@verbose_option
def info_command(gallery: Path, as_json: bool) -> None:
    """Say what is in GALLERY and how it was made."""
    with _existing(gallery) as engine:
        facts = engine.info()
    if as_json:
        click.echo(json.dumps(facts))
    else:
        _print_facts(facts)


@main.command("remove")
@gallery_argument
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
@verbose_option
def remove_command(gallery: Path, photos: tuple[str, ...]) -> None:
    """Take each PHOTO out of GALLERY.

    A folder stands for all the photos in it. The files themselves stay.
    """
    with _existing(gallery) as engine:
        removed = engine.remove(*photos)
    _say(f"{_count(removed.photos, 'photo')} and {_count(removed.faces, 'face')} removed")


@main.command("prune")
@gallery_argument
@click.option(
    "--force", is_flag=True, help="Even if a whole folder is missing, or empty where photos were."
)
@verbose_option
def prune_command(gallery: Path, force: bool) -> None:
    """Take photos whose files have gone out of GALLERY."""
    with _existing(gallery) as engine:
        removed = engine.prune(force=force)
    _say(f"{_count(removed.photos, 'photo')} and {_count(removed.faces, 'face')} removed")


@main.command("rebuild")
@gallery_argument
@verbose_option
def rebuild_command(gallery: Path) -> None:
    """Make GALLERY's index anew from its stored embeddings."""
    with _existing(gallery) as engine:
        engine.rebuild()
    _say("index rebuilt")


@main.command("check")
@gallery_argument
@verbose_option
@click.pass_context
def check_command(ctx: click.Context, gallery: Path) -> None:
    """Look for damage in GALLERY.

    Each problem is one line on stdout.
    """
    with _existing(gallery) as engine:
        problems = engine.check()
    for problem in problems:
        _out(problem)
    _say(f"{_count(len(problems), 'problem')} found" if problems else "no problems found")
    ctx.exit(SOME if problems else DONE)


@main.command("models")
@json_option
@verbose_option
def models_command(as_json: bool) -> None:
    """List the embedding models that --model knows by name."""
    from face2vec.models import CATALOGUE, DEFAULT_MODEL, cache_dir

    here = {m.key: _is_here(m, cache_dir()) for m in CATALOGUE.values()}
    if as_json:
        for m in CATALOGUE.values():
            facts = {name: getattr(m, name) for name in MODEL_FACTS}
            facts |= {"default": m.key == DEFAULT_MODEL, "on_this_machine": here[m.key]}
            click.echo(json.dumps(facts))
        return
    head = ("model", "dimension", "size", "LFW", "licence", "trained on", "on this machine")
    rows = [
        (
            m.key,
            str(m.dimension),
            f"{m.size_bytes / 1e6:.0f} MB" if m.size_bytes else "not stated",
            (m.lfw or "not stated").partition(",")[0],
            m.licence,
            m.trained_on,
            "yes" if here[m.key] else "no",
        )
        for m in CATALOGUE.values()
    ]
    for line in columns([head, *rows]):
        _out(line)
    _say(
        f"\nThe default is {DEFAULT_MODEL}. LFW is the accuracy published with the "
        "weights, of mini as measured by this project."
    )
    for m in CATALOGUE.values():
        _say(f"{m.key}: {m.commercial_use}")


def _is_here(model: ModelDescription, cache: Path) -> bool:
    """Whether the model can be used without a network."""
    if model.url is None:
        return True
    weights = cache / "weights" / model.url.rpartition("/")[2]
    return weights.is_file() or any((cache / "onnx").glob(f"{model.key}-*.onnx"))


def _existing(gallery: Path, runtime: str = "auto", threads: int | None = None) -> Face2Vec:
    from face2vec.engine import Face2Vec

    return Face2Vec(gallery, runtime=runtime, threads=threads)


def _detector(
    min_face: float | None, max_side: int | None, try_turned: bool
) -> DetectorSettings | None:
    """The settings that were given; None, the gallery's own or the defaults, if none was."""
    from face2vec.detection.mtcnn import DetectorSettings

    given: dict[str, Any] = {}
    if min_face is not None:
        given["min_face_size"] = min_face
    if max_side is not None:
        given["max_side"] = max_side or None
    if try_turned:
        given["try_turned"] = True
    return DetectorSettings(**given) if given else None


def _summary_dict(summary: BuildSummary) -> dict[str, Any]:
    facts = asdict(summary)
    facts["unreadable"] = [{"photo": p, "reason": r} for p, r in summary.unreadable]
    return {**facts, "rate": summary.rate}


def _say_summary(summary: BuildSummary, gallery: Path) -> None:
    parts = [f"{summary.added:,} new", f"{summary.unchanged:,} unchanged"]
    if summary.forgotten:
        parts.append(f"{summary.forgotten:,} of people who were forgotten")
    if summary.copies:
        parts.append(_count(summary.copies, "copy", "copies"))
    _say(f"{_count(summary.photos, 'photo')}: {', '.join(parts)}")
    _say(f"{_count(summary.faces, 'new face')}; {_count(summary.no_face, 'photo')} with no face")
    if summary.unreadable:
        _say(f"{_count(len(summary.unreadable), 'photo')} could not be read:")
        for line in reasons(summary.unreadable):
            _say(line)
    _say(f"{summary.rate:,.1f} photos a second, {summary.seconds:,.1f} s")
    if not summary.interrupted:
        _say(f"Search it: face2vec search {printable(shlex.quote(str(gallery)))} PHOTO")


def _print_facts(facts: dict[str, Any], indent: str = "") -> None:
    for key, value in facts.items():
        if isinstance(value, dict):
            _out(f"{indent}{key}:")
            _print_facts(value, indent + "  ")
        else:
            _out(f"{indent}{key}: {value}")


def _count(number: int, noun: str, nouns: str | None = None) -> str:
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def _tsv(text: str) -> str:
    """``text`` in one field: a tab or a line's end inside a name is written with a backslash."""
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _out(text: str) -> None:
    click.echo(text)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _say_error(error: Exception) -> None:
    if os.environ.get("FACE2VEC_DEBUG") == "1":
        _say("".join(traceback.format_exception(error)).rstrip())
    lines = str(error).splitlines() or [type(error).__name__]
    _say("face2vec: " + "\n".join(printable(line) for line in lines))
