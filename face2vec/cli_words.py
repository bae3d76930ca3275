"""Words that several commands say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from face2vec.pages import printable

NAMES_SHOWN = 3
"""Photos named for each reason."""


def reasons(failed: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A line a reason, the commonest first, with how many photos it is said of and some names.

    Args:
        failed: (photo, reason) of each.
    """
    for reason, count in Counter(reason for _, reason in failed).most_common():
        names = [printable(photo) for photo, why in failed if why == reason]
        more = ", …" if count > NAMES_SHOWN else ""
        yield f"  {count:,} × {reason}: {', '.join(names[:NAMES_SHOWN])}{more}"
