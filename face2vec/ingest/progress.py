"""Progress of long work: a bar on standard error, or a function of the caller."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

Progress = bool | Callable[[int, int | None], object]
"""True for a bar; or a function of the number done and of all, which ends the work with False."""


class Bar(Protocol):
    """What long work moves forward."""

    def update(self, n: float | None = 1) -> object:
        """Count some more as done."""

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Say behind the bar what is being done."""


class _Reporting:
    """Calls a function where a bar would move.

    Args:
        report: the function.
        total: number of all, or None.
    """

    def __init__(self, report: Callable[[int, int | None], object], total: int | None) -> None:
        self._report, self._total, self._done = report, total, 0

    def __enter__(self) -> _Reporting:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, n: float | None = 1) -> None:
        """Count some more as done.

        Raises:
            KeyboardInterrupt: the function returned False.
        """
        self._done += int(n or 0)
        if self._report(self._done, self._total) is False:
            raise KeyboardInterrupt

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """There is nothing that could be said."""


def progress_bar(progress: Progress, total: int | None, unit: str) -> AbstractContextManager[Bar]:
    """What long work moves forward with ``update(count)``.

    Args:
        progress: True shows a bar, False nothing; a function is called at each update.
        total: number of all, or None if it is not known.
        unit: what is counted.
    """
    if callable(progress):
        return _Reporting(progress, total)
    from tqdm import tqdm

    bar: AbstractContextManager[Bar] = tqdm(
        total=total, unit=unit, disable=not progress, dynamic_ncols=True
    )
    return bar
