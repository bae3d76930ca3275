"""Text that is safe to print."""

from __future__ import annotations

import pytest

from face2vec.report.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 照片.jpg", "plain é 照片.jpg"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b31m", r"\x9b31m"),
        ("tab\tline\nend\r", r"tab\tline\nend\r"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("\u202a\u202b\u202c\u202d", r"\u202a\u202b\u202c\u202d"),
        ("\u2066\u2067\u2068\u2069", r"\u2066\u2067\u2068\u2069"),
        ("\u200e\u200f\u061c", r"\u200e\u200f\u061c"),
        ("family 👨\u200d👩\u200d👧.jpg", "family 👨\u200d👩\u200d👧.jpg"),
        ("caf\udce9", r"caf\udce9"),
    ],
    ids=ascii,
)
def test_printable_escapes_what_changes_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_printable_keeps_bytes_for_a_file() -> None:
    assert printable("caf\udce9\x1b\t", keep_bytes=True) == "caf\udce9\\x1b\\t"
