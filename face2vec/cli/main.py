"""The command line: thin commands over `face2vec.Face2Vec`, in six groups.

Heavy packages are imported inside the commands, so that ``--help`` is immediate.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

import click

from face2vec.cli.collection import COLLECTION_COMMANDS
from face2vec.cli.common import safe, say, say_error, verbose_option, warnings_shown
from face2vec.cli.compare import compare_command
from face2vec.cli.evaluate import evaluate_commands
from face2vec.cli.exchange import EXCHANGE_COMMANDS
from face2vec.cli.exits import DONE, EPILOG, ERROR, INTERRUPTED
from face2vec.cli.lab import lab_commands
from face2vec.cli.mcp import mcp_command
from face2vec.cli.models import models_commands
from face2vec.cli.people import PEOPLE_COMMANDS
from face2vec.cli.search import search_command
from face2vec.cli.serve import serve_command
from face2vec.cli.train import train_command
from face2vec.cli.upgrade import upgrade_command
from face2vec.cli.verify import calibrate_command, verify_command
from face2vec.cli.watch import watch_command
from face2vec.errors import Face2VecError, is_full_disk, not_written
from face2vec.files import ON_WINDOWS

GROUPS: dict[str, tuple[click.Command, ...]] = {
    "Collection": (*COLLECTION_COMMANDS, watch_command),
    "Search": (search_command, verify_command, serve_command, mcp_command),
    "People": PEOPLE_COMMANDS,
    "Exchange": EXCHANGE_COMMANDS,
    "Models": (models_commands, upgrade_command, train_command),
    "Measure": (calibrate_command, evaluate_commands, compare_command, lab_commands),
}


class Commands(click.Group):
    """The group of all commands; turns errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that ``ctx`` names."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            with warnings_shown():
                return super().invoke(ctx)
        except click.ClickException as error:
            error.message = safe(error.message)  # type: ignore[misc]
            raise
        except OSError as error:
            if not _reader_has_ended(error):
                say_error(_readable(error))
                ctx.exit(ERROR)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(DONE)
        except KeyboardInterrupt:
            say("face2vec: interrupted")
            ctx.exit(INTERRUPTED)
        except Face2VecError as error:
            say_error(error)
            ctx.exit(ERROR)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Read the options of the program itself."""
        try:
            return super().make_context(*args, **options)
        except click.ClickException as error:
            error.message = safe(error.message)  # type: ignore[misc]
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in groups."""
        width = formatter.width - 6 - max(map(len, self.commands))
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(one.name or "", one.get_short_help_str(width)) for one in commands]
                )


def _readable(error: OSError) -> Exception:
    """The error, in words if it names a file, or says that the disk is full."""
    if isinstance(error, Face2VecError):
        return error
    if is_full_disk(error):
        return not_written(error)
    if error.filename is None or error.strerror is None:
        return error
    return Face2VecError(
        f"cannot read or write {error.filename!s}: {error.strerror.lower()}; check the path"
    )


def _reader_has_ended(error: OSError) -> bool:
    """Whether the reader of standard output, such as `head`, has closed the pipe.

    Windows reports that as an invalid argument without a file name.
    """
    if isinstance(error, BrokenPipeError):
        return True
    return ON_WINDOWS and error.errno == errno.EINVAL and error.filename is None


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from face2vec import __version__

        click.echo(f"face2vec {__version__}")
        ctx.exit()


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
    """Find a face again in a photo collection.

    Start with: face2vec index PHOTOS --gallery indexes/family
    """


for group in GROUPS.values():
    for command in group:
        main.add_command(command)
