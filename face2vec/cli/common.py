"""Words that several commands say, and options that they share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from face2vec.report.html import printable

NAMES_SHOWN = 3
"""Photos named for each reason."""

Command = TypeVar("Command", bound=Callable[..., Any])


class Option(Protocol):
    """What adds an option to a command."""

    def __call__(self, command: Command, /) -> Command:
        """The command with it."""
        ...


class Number(click.FloatRange):
    """A number in a range, in which NaN is not."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number, or a usage error."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail("nan is no number.", param, ctx)
        return number


json_line_option = click.option(
    "--json", "as_json", is_flag=True, help="One line of JSON on stdout."
)
no_bar_option = click.option("-q", "--quiet", is_flag=True, help="No bar.")


def report_option(plots: str) -> Option:
    """``--out``, a folder for a report.

    Args:
        plots: what is written there beside the page and the figures, in words.
    """
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        help=f"Write report.html, figures.json and {plots} into this folder.",
    )


def together(*options: Option) -> Option:
    """Several options as one decorator; ``--help`` shows them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def reasons(failed: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A line a reason, the commonest first, with how many photos it is said of and some names.

    Args:
        failed: (photo, reason) of each.
    """
    for reason, count in Counter(reason for _, reason in failed).most_common():
        names = [printable(photo) for photo, why in failed if why == reason]
        more = ", …" if count > NAMES_SHOWN else ""
        yield f"  {count:,} × {reason}: {', '.join(names[:NAMES_SHOWN])}{more}"
