"""Tables, in text and in HTML."""

from __future__ import annotations

from face2vec.report.html import (
    LEFT_OUT,
    Made,
    explained_table,
    failed_section,
    made_section,
    table,
)
from face2vec.report.text import columns


def test_columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() -> None:
    assert columns([("model", "size"), ("m", "3 MB"), ("another", "")]) == [
        "model    size",
        "m        3 MB",
        "another",
    ]


def test_columns_of_no_rows_are_no_lines() -> None:
    assert columns([]) == []


def test_table_escapes_text_and_names_its_rows_and_columns() -> None:
    made = table(("who", "<b>"), [("Ann & Bo", "1 < 2")])
    assert '<th scope="col">&lt;b&gt;</th>' in made
    assert '<tr><th scope="row">Ann &amp; Bo</th><td>1 &lt; 2</td></tr>' in made


def test_table_leaves_html_as_it_is_where_it_is_told() -> None:
    made = table(("<i>",), [("<b>one</b>", "<img>")], raw=True)
    assert '<th scope="row"><b>one</b></th><td><img></td>' in made
    assert "&lt;i&gt;" in made  # heads are always text


def test_table_without_heads_has_none() -> None:
    assert "thead" not in table((), [("a", "b")])


def test_made_section_names_command_date_model_and_checksum() -> None:
    made = made_section(Made("face2vec lab <x>", "mini", "ab" * 32, "2024-05-01"))
    assert "Made on 2024-05-01." in made
    assert "<code>face2vec lab &lt;x&gt;</code>" in made
    assert f"<code>{'ab' * 32}</code>" in made
    assert "Command" not in made_section(Made(date="2024-05-01"))


def test_made_section_has_the_checksum_of_each_of_several_models() -> None:
    made = made_section(Made(others=(("mini", "ab" * 32), ("<x>", "cd" * 32), ("none", ""))))
    assert f"SHA-256 of the weights of mini: <code>{'ab' * 32}</code>" in made
    assert f"of &lt;x&gt;: <code>{'cd' * 32}</code>" in made
    assert "none" not in made


def test_caption_is_outside_of_the_part_that_scrolls() -> None:
    made = table((), [("a", "b")], caption="1 < 2")
    caption, rest = made.split('<div class="wide"')
    assert "<figcaption>1 &lt; 2</figcaption>" in caption
    assert "figcaption" not in rest
    assert "figure" not in table((), [("a", "b")])


def test_explained_table_escapes_names_and_words() -> None:
    made = explained_table([("FAR < 1", "few & rare")], "What they say")
    assert "<h2>What they say</h2>" in made
    assert '<th scope="row">FAR &lt; 1</th><td class="words">few &amp; rare</td>' in made


def test_failed_section_says_whose_photos_and_what_became_of_them() -> None:
    made = failed_section([("a", "empty file")], became=LEFT_OUT, whose="<mini>", things="video")
    assert "<h2>Videos that failed with &lt;mini&gt;</h2>" in made
    assert "<summary>1 video; they were left out</summary>" in made


def test_failed_photos_are_listed_up_to_a_number() -> None:
    assert failed_section([]) == ""
    made = failed_section([("/a/<1>.jpg", "truncated"), ("/a/2.jpg", ""), ("/a/3.jpg", "")], 2)
    assert "<h2>Photos that failed</h2>" in made
    assert "<summary>3 photos; each counts as an error</summary>" in made
    assert "<bdi>/a/&lt;1&gt;.jpg</bdi>: truncated</li>" in made
    assert "3.jpg" not in made
    assert "… and 1 more" in made
