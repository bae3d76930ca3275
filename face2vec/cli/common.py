"""What commands share: options, and how they print results and messages.

Results go to stdout, as text or as JSON lines. Messages for people go to stderr.
"""

from __future__ import annotations

import glob
import logging
import math
import os
import shlex
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

import click

from face2vec.cluster.address import MilvusAddress, address_of, is_address
from face2vec.errors import SettingsError, not_written
from face2vec.files import expanded, is_object
from face2vec.report.text import printable
from face2vec.runtime.select import RUNTIMES

if TYPE_CHECKING:
    from face2vec.client import Client
    from face2vec.engine import Face2Vec

NAMES_SHOWN = 3
"""Photos listed for each reason."""

Place = Path | MilvusAddress
"""Where a gallery is: its folder, or its address in Milvus."""

Command = TypeVar("Command", bound=Callable[..., Any])


class Option(Protocol):
    """A decorator that adds an option to a command."""

    def __call__(self, command: Command, /) -> Command:
        """The command with the option."""
        ...


class Number(click.FloatRange):
    """A number in a range; NaN is refused."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number, or a usage error."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail("nan is not a number.", param, ctx)
        return number


class FilePath(click.Path):
    """A path; ``~`` at its start is expanded, as a shell does not do in ``--gallery=~/photos``.

    Args:
        objects: also the address of a folder in object storage.
        options: those of `click.Path`.
    """

    def __init__(self, *, objects: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._objects = objects

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or a usage error.

        Raises:
            SettingsError: it is the address of a gallery in Milvus.
        """
        if is_address(value):
            raise SettingsError(
                f"{address_of(value)} is a gallery in Milvus, and "
                f"{'this command' if param is None else param.human_readable_name} "
                "takes a folder; copy the gallery to a folder first: "
                f"face2vec copy {address_of(value)} indexes/copy"
            )
        what = "this command" if param is None else param.human_readable_name
        if isinstance(value, str) and not value.strip():
            self.fail("it is empty; give a path", param, ctx)
        if isinstance(value, str) and value.startswith(("http://", "https://")):
            raise SettingsError(
                f"{what} takes a path, not the address of a service; of a service, search, its "
                "pages and face2vec.Client can be used"
            )
        path = expanded(value)
        if is_object(path):
            if self._objects:
                return path
            raise SettingsError(
                f"{what} takes a path on this machine, not {path}; photos in object storage are "
                f"read by: face2vec index {path} --gallery indexes/family"
            )
        return super().convert(path, param, ctx)


class WrittenFile(FilePath):
    """A file that a command writes at its end; the folder must be there before it begins."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path.

        Raises:
            NotWrittenError: its folder is missing.
        """
        path = super().convert(value, param, ctx)
        folder = Path(path).parent
        if not folder.is_dir():
            raise not_written(FileNotFoundError(), str(path))
        return path


class GalleryPlace(FilePath):
    """A folder of a gallery, or its address in Milvus.

    Args:
        service: also the address of a service.
        options: those of `click.Path`.
    """

    name = "gallery"

    def __init__(self, *, service: bool = False, **options: Any) -> None:
        super().__init__(path_type=Path, **options)
        self._service = service

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A path, a `MilvusAddress`, or the address of a service as text.

        Raises:
            SettingsError: the address in Milvus is not valid.
        """
        if is_address(value):
            return address_of(value)
        if self._service and isinstance(value, str) and value.startswith(("http://", "https://")):
            return value
        return super().convert(value, param, ctx)


class OutputFile(click.File):
    """A file that is written; ``~`` at the start of its path is expanded."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The open file, or a usage error."""
        wanted = expanded(value) if isinstance(value, str | os.PathLike) else value
        return super().convert(wanted, param, ctx)


def _with_list(ctx: click.Context | None, file: str) -> str:
    """How a command that takes any number of photos takes them from a list."""
    if ctx is None or ctx.info_name == "verify":
        return ""
    return f"; to give a list of paths: xargs -d '\\n' face2vec {ctx.info_name} GALLERY < {file}"


class QueryPhoto(click.ParamType):  # type: ignore[type-arg]
    """A photo to search with; says what is wrong with what other commands take."""

    name = "photo"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The path as it is, or a usage error."""
        text = str(value)
        if os.path.lexists(expanded(text)):
            return text
        if text == "-":
            self.fail(
                "- is no photo, and photos are not read from standard input; write the photo to a "
                f"file{_with_list(ctx, 'list.txt')}",
                param,
                ctx,
            )
        if text.startswith("@"):
            self.fail(
                f"{text} is no photo; lists are for 'index'"
                f"{_with_list(ctx, shlex.quote(text[1:]))}",
                param,
                ctx,
            )
        if glob.has_magic(text):
            found = len(glob.glob(expanded(text), recursive=True))  # noqa: PTH207
            self.fail(
                f"{text} is a pattern that the shell did not expand, and "
                + (
                    f"it matches {count(found, 'file')}; write it without quotes"
                    if found
                    else "no file matches it; check the path"
                ),
                param,
                ctx,
            )
        return text


class _Messages(logging.StreamHandler[Any]):
    """Writes the log to standard error, safe to print.

    Args:
        form: form of a line.
    """

    def __init__(self, form: str) -> None:
        logging.Handler.__init__(self)
        self.is_verbose = False
        self.setFormatter(_Printable(form))

    @property
    def stream(self) -> Any:
        """Standard error, whatever it is now."""
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        """Nothing else can be set."""


class _Printable(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = printable(record.message)
        return super().formatMessage(record)


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show the warnings of the log, safe to print, unless the caller of the program logs itself."""
    logger = logging.getLogger("face2vec")
    handler = _Messages("%(message)s")
    if not logger.handlers and not logging.getLogger().handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _verbose(_ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        logger = logging.getLogger("face2vec")
        logger.setLevel(logging.INFO)
        if not any(isinstance(one, _Messages) and one.is_verbose for one in logger.handlers):
            handler = _Messages("%(asctime)s %(name)s: %(message)s")
            handler.is_verbose = True
            logger.handlers[:] = [one for one in logger.handlers if not isinstance(one, _Messages)]
            logger.addHandler(handler)


verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_verbose,
    help="Log every step to stderr.",
)
gallery_argument = click.argument("gallery", type=GalleryPlace())
photos_argument = click.argument("photos", nargs=-1, required=True, metavar="PHOTO...")
queries_argument = click.argument(
    "photos", nargs=-1, required=True, metavar="PHOTO...", type=QueryPhoto()
)
json_lines_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON lines to stdout."
)
json_line_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one line of JSON to stdout."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Show no progress bar.")
model_option = click.option(
    "--model", metavar="KEY_OR_FILE", help="Embedding model: a key that 'models' lists, or a file."
)
runtime_option = click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="auto",
    show_default=True,
    help="Runtime for the embedding network.",
)
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Processor threads. [default: all cores]"
)


def report_option(plots: str) -> Option:
    """``--out``, a folder for a report.

    Args:
        plots: what is written there besides the page and the figures.
    """
    return click.option(
        "--out",
        type=FilePath(path_type=Path, file_okay=False),
        help=f"Write report.html, figures.json and {plots} to this folder.",
    )


def together(*options: Option) -> Option:
    """Several options as one decorator; ``--help`` lists them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


pattern_options = together(
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="Leave out files and folders, as a line of .gitignore does; can be repeated.",
    ),
    click.option(
        "--include",
        multiple=True,
        metavar="PATTERN",
        help="Take files and folders that are left out otherwise; can be repeated.",
    ),
)
runtime_options = together(runtime_option, threads_option)


def reached(
    gallery: Place | str, runtime: str = "auto", threads: int | None = None
) -> Face2Vec | Client:
    """The engine for a gallery, or the client for the address of a service."""
    if not isinstance(gallery, str):
        return opened(gallery, runtime, threads)
    from face2vec.client import Client

    return Client(gallery)


def opened(gallery: Place, runtime: str = "auto", threads: int | None = None) -> Face2Vec:
    """The engine for a gallery."""
    from face2vec.engine import Face2Vec

    return Face2Vec(gallery, runtime=runtime, threads=threads)


_results: IO[str] | None = None
"""Where results go, if that is not standard output."""


def out(text: str) -> None:
    """Print a result, safe to print."""
    click.echo(safe(text), file=_results)


@contextmanager
def results_alone() -> Iterator[None]:
    """Keep standard output for results; what else this process writes there goes to stderr.

    Ray writes to it from C++, for instance when a machine is lost.
    """
    global _results
    usual = sys.stdout
    try:
        is_first = usual.fileno() == 1
    except (OSError, ValueError, AttributeError):  # it is no file, as in a test
        is_first = False
    usual.flush()
    kept = os.dup(1) if is_first else -1
    _results = usual
    try:
        if is_first:
            _results = os.fdopen(
                kept, "w", encoding=usual.encoding, errors=usual.errors, buffering=1
            )
            os.dup2(2, 1)
        sys.stdout = sys.stderr
        yield
    finally:
        sys.stdout = usual
        if is_first:
            assert _results is not None
            _results.flush()
            os.dup2(kept, 1)
            _results.close()
        _results = None


def say(text: str) -> None:
    """Print a message for people, safe to print."""
    click.echo(safe(text), err=True)


def safe(text: str) -> str:
    """Lines of text with every character safe to print, see `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def say_error(error: Exception) -> None:
    """Print an error as one line, with ``FACE2VEC_DEBUG=1`` also its traceback."""
    if os.environ.get("FACE2VEC_DEBUG") == "1":
        say("".join(traceback.format_exception(error)).rstrip())
    lines = str(error).splitlines() or [type(error).__name__]
    say("face2vec: " + "\n".join(lines))


def count(number: int, noun: str, nouns: str | None = None) -> str:
    """A number with its noun, such as ``1 photo`` and ``1,000 photos``."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def count_files(number: int, videos: int) -> str:
    """A number of photos and videos, such as ``12 photos and 2 videos``.

    Args:
        number: how many files.
        videos: how many of them are videos.
    """
    photos = [count(number - videos, "photo")] if number > videos or not videos else []
    return " and ".join([*photos, *([count(videos, "video")] if videos else [])])


def reasons(failed: Sequence[tuple[str, str]]) -> Iterator[str]:
    """One line per reason, the most frequent first, with a count and some photos.

    Args:
        failed: (photo, reason) of each photo.
    """
    for reason, number in Counter(reason for _, reason in failed).most_common():
        names = [printable(photo) for photo, why in failed if why == reason]
        more = ", …" if number > NAMES_SHOWN else ""
        yield f"  {number:,} × {reason}: {', '.join(names[:NAMES_SHOWN])}{more}"


def command_line() -> str:
    """The command line of this process, as somebody would type it again."""
    program = Path(sys.argv[0])
    words = sys.argv[1:] if "face2vec" in (program.stem, program.parent.name) else []
    if words:
        return shlex.join(["face2vec", *words])
    context = click.get_current_context(silent=True)
    return "" if context is None else context.command_path.replace("main", "face2vec", 1)
