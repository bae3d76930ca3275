"""Self-contained HTML pages: styles and pictures are inside the file, without any script."""

from __future__ import annotations

import base64
import html
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from face2vec.errors import AddressNotAllowedError, PhotoError
from face2vec.files import expanded, writing, written_whole
from face2vec.photos.allowed import warn_once
from face2vec.report.text import at_words, box_words, percent, printable, short_name
from face2vec.report.thumbnails import thumbnail

if TYPE_CHECKING:
    import os

    from PIL import Image

    from face2vec.photos.sources import PhotoLike
    from face2vec.types import Box, Match

PHOTO_SIDE = 1000
"""Longest side in pixels of a whole photo on a page."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --faint: #55555c; --paper: #ffffff;
  --panel: #f3f4f6; --line: #c9ccd2; --accent: #1a56b0;
  --plot-1: #0072b2; --plot-2: #c24e00; --plot-3: #00795a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf0; --faint: #b3b6bf; --paper: #16171a; --panel: #22242a; --line: #454a54;
    --accent: #8ab4f8; --plot-1: #6bb8f0; --plot-2: #ff9d5c; --plot-3: #5fd3a8; }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 0; }
main { max-width: 60rem; margin: 0 auto; padding: .6rem 1rem 2rem; }
h1 { font-size: 1.6rem; margin: .6rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; overflow-wrap: anywhere; border-top: 1px solid var(--line);
  padding-top: 1rem; margin: 1.4rem 0 .4rem; }
h3 { font-size: 1.05rem; margin: 1.2rem 0 .3rem; }
p, li { max-width: 46rem; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; padding: .5rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .8rem .4rem 0; text-align: left;
  vertical-align: top; }
thead th { color: var(--faint); font-size: .875rem; vertical-align: bottom; }
tbody th { font-weight: normal; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.photo { overflow-wrap: anywhere; min-width: 10rem; }
td.value { font-weight: 600; white-space: nowrap; }
.small, td.words, small { font-size: .875rem; color: var(--faint); }
img { display: block; border-radius: 4px; max-width: 100%; height: auto; }
td img { max-width: none; }
a { color: var(--accent); }
summary { cursor: pointer; padding: .4rem 0; }
code { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
.made { background: var(--panel); border-radius: 10px; padding: .6rem 1rem; margin-top: 2rem; }
figure { margin: 1rem 0; }
.plot { max-width: 30rem; }
.plot svg { width: 100%; height: auto; display: block; font-family: system-ui, sans-serif; }
figcaption { font-size: .875rem; color: var(--faint); padding-top: .3rem; }
.boxes { width: 100%; height: auto; display: block; }
.boxes rect { fill: none; stroke: #ffd400; stroke-width: 3px; vector-effect: non-scaling-stroke; }
.boxes text { fill: #ffd400; stroke: #000; stroke-width: 4px; paint-order: stroke;
  font-weight: bold; }
nav a { display: inline-block; padding: .4rem .6rem .4rem 0; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
@media (max-width: 34rem) {
  .figures, .figures tbody, .figures tr, .figures th, .figures td { display: block; border: 0;
    padding: 0; white-space: normal; }
  .figures thead { display: none; }
  .figures tr { border-bottom: 1px solid var(--line); padding: .5rem 0; }
}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""


def write_page(path: str | os.PathLike[str], title: str, body: str) -> None:
    """Write one page, atomically; ``body`` is HTML in which text is already escaped.

    Raises:
        NotWrittenError: it cannot be written; an existing page is unchanged.
    """
    page = _PAGE.format(title=html.escape(title), style=_STYLE, body=body)
    with writing(path) as file, written_whole(file) as stream:
        stream.write(page.encode("utf-8", "backslashreplace"))


def img(image: Image.Image, alt: str) -> str:
    """A picture inside the page, shown at two thirds of its size for dense screens."""
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=85)
    data = base64.b64encode(jpeg.getvalue()).decode("ascii")
    width, height = (side * 2 // 3 for side in image.size)
    return (
        f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" '
        f'alt="{html.escape(alt)}">'
    )


def boxes_on(photo: PhotoLike, boxes: Sequence[tuple[int, Box]], alt: str) -> str:
    """A photo with numbered boxes; nothing if it cannot be read.

    Args:
        photo: the photo.
        boxes: number and (left, top, right, bottom) in pixels of the upright photo, of each box.
        alt: what it shows, in words.
    """
    from PIL import Image

    from face2vec.photos.decode import open_photo

    try:
        opened = open_photo(photo, max_side=PHOTO_SIDE)
    except PhotoError:
        return ""
    except AddressNotAllowedError as error:
        warn_once(error)
        return ""
    stream = io.BytesIO()
    picture = Image.fromarray(opened.image)
    picture.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    picture.save(stream, "JPEG", quality=85)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    size = opened.height / 25
    drawn = []
    for number, (left, top, right, bottom) in boxes:
        place = f'x="{left:.0f}" y="{top:.0f}"'
        drawn.append(
            f'<rect {place} width="{right - left:.0f}" height="{bottom - top:.0f}"></rect>'
            f'<text x="{left:.0f}" y="{max(top - size / 4, size):.0f}" font-size="{size:.0f}">'
            f"{number}</text>"
        )
    return (
        f'<svg class="boxes" viewBox="0 0 {opened.width} {opened.height}" role="img" '
        f'aria-label="{html.escape(alt)}" style="max-width: {picture.width}px">'
        f'<image href="data:image/jpeg;base64,{data}" width="{opened.width}" '
        f'height="{opened.height}"></image>{"".join(drawn)}</svg>'
    )


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    raw: bool = False,
    caption: str = "",
) -> str:
    """A table whose first column names the rows.

    Args:
        head: title of each column, as text; empty for a table without titles.
        rows: cells of each row.
        raw: whether the cells are HTML instead of text.
        caption: what the table shows, as text; empty for none.
    """

    def cell(words: str) -> str:
        return words if raw else html.escape(words)

    titles = "".join(
        f'<th scope="col">{html.escape(one)}</th>' if one else "<td></td>" for one in head
    )
    above = f"<thead><tr>{titles}</tr></thead>\n" if titles else ""
    body = "\n".join(
        f'<tr><th scope="row">{cell(first)}</th>'
        + "".join(f"<td>{cell(one)}</td>" for one in others)
        + "</tr>"
        for first, *others in rows
    )
    wide = f'<div class="wide" tabindex="0"><table>{above}<tbody>\n{body}\n</tbody></table></div>'
    if not caption:
        return wide
    # Outside of what scrolls, so that it is always in view.
    return f"<figure>\n<figcaption>{html.escape(caption)}</figcaption>\n{wide}</figure>"


@dataclass(frozen=True)
class Made:
    """How the figures of a page were made.

    Attributes:
        command: the command line, or empty.
        model: key of the model, or empty.
        weights: SHA-256 in hexadecimal of its weights, or empty.
        date: the day, such as ``"2024-05-01"``.
        others: (name, SHA-256 in hexadecimal of the weights) of each model, if there are several.
    """

    command: str = ""
    model: str = ""
    weights: str = ""
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d"))
    others: tuple[tuple[str, str], ...] = ()


def figures_table(rows: Sequence[tuple[str, str, str]]) -> str:
    """Figures, their values, and what each means to somebody who has never heard of it.

    Args:
        rows: name, value and explanation of each, as text.
    """
    body = "\n".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td class="value">{html.escape(value)}</td>'
        f'<td class="words">{html.escape(words)}</td></tr>'
        for name, value, words in rows
    )
    head = "".join(f'<th scope="col">{one}</th>' for one in ("Figure", "Value", "What it says"))
    return (
        f'<div class="wide" tabindex="0"><table class="figures"><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def explained_table(rows: Sequence[tuple[str, str]], caption: str) -> str:
    """What the columns or rows of other tables mean to somebody who has never heard of them.

    Args:
        rows: name and explanation of each, as text.
        caption: title of the table.
    """
    body = "\n".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        f'<td class="words">{html.escape(words)}</td></tr>'
        for name, words in rows
    )
    head = "".join(f'<th scope="col">{one}</th>' for one in ("Figure", "What it says"))
    return (
        f"<h2>{html.escape(caption)}</h2>\n"
        f'<div class="wide" tabindex="0"><table class="figures"><thead><tr>{head}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


COUNTED, LEFT_OUT = "each counts as an error", "they were left out"
"""What became of photos that failed."""


def failed_section(
    failed: Sequence[tuple[str, str]],
    most: int = 200,
    *,
    became: str = COUNTED,
    whose: str = "",
    things: str = "photo",
) -> str:
    """The photos that could not be used, with the reasons; nothing without any.

    Args:
        failed: path of each, and why.
        most: how many to list.
        became: what became of them, `COUNTED` or `LEFT_OUT`.
        whose: name of the encoder that failed, if there are several; text.
        things: ``"photo"`` or ``"video"``.
    """
    if not failed:
        return ""
    rows = "\n".join(
        f"<li>{photo_link(photo)}{f': {html.escape(printable(why))}' if why else ''}</li>"
        for photo, why in failed[:most]
    )
    rest = f"<p>… and {len(failed) - most:,} more</p>" if len(failed) > most else ""
    title = f"{things.capitalize()}s that failed{f' with {whose}' if whose else ''}"
    count = f"{len(failed):,} {things}{'s' if len(failed) > 1 else ''}"
    return (
        f"<h2>{html.escape(title)}</h2>\n<details><summary>{count}; "
        f"{became}</summary>\n<ul>\n{rows}\n</ul>\n{rest}</details>"
    )


def made_section(made: Made) -> str:
    """How the figures were made: command, date, model and its checksum."""
    lines = [f"Made on {html.escape(made.date)}."]
    if made.command:
        lines.append(f"Command: <code>{html.escape(printable(made.command))}</code>")
    if made.model:
        lines.append(f"Model: {html.escape(printable(made.model))}")
    if made.weights:
        lines.append(f"SHA-256 of its weights: <code>{html.escape(made.weights)}</code>")
    lines += [
        f"SHA-256 of the weights of {html.escape(printable(name))}: "
        f"<code>{html.escape(weights)}</code>"
        for name, weights in made.others
        if weights
    ]
    return f'<section class="made small">{"<br>".join(lines)}</section>'


def photo_link(photo: str, time: float | None = None) -> str:
    """The path of a photo, as a link if the file exists.

    Args:
        photo: the path.
        time: of a video, a time in seconds; the link begins there.
    """
    name = f"<bdi>{html.escape(printable(photo))}</bdi>{at_words(time)}"
    path = Path(expanded(photo))
    try:
        there = path.is_file()
    except OSError:  # several names in one, too long for a path
        there = False
    if not there:
        return name
    place = "" if time is None else f"#t={time:.3f}"  # a media fragment
    return f'<a href="{html.escape(path.absolute().as_uri())}{place}">{name}</a>'


def match_table(matches: Sequence[Match], caption: str) -> str:
    """The matches of one query face as a table."""
    if not matches:
        return "<p>No match.</p>"
    sure = ("Probability",) if matches[0].probability is not None else ()
    titles = ("Rank", "Face", "Similarity", *sure, "Photo")
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    rows = "\n".join(_match_rows(matches))
    title = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="wide" tabindex="0"><table>{title}\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _match_rows(matches: Sequence[Match]) -> Iterator[str]:
    for m in matches:
        name = short_name(m.photo) + at_words(m.time)
        picture = thumbnail(m.photo, m.face.box, time=m.time)
        face = img(picture, f"Match {m.rank}, face in {name}")
        probability = ""
        if m.probability is not None:
            probability = f'<td class="number">{html.escape(percent(m.probability))}</td>'
        doubt = f"<br>less certain: {'; '.join(m.outside)}" if m.outside else ""
        copies = "".join(f"<br>the same file: {photo_link(copy, m.time)}" for copy in m.copies)
        yield (
            f'<tr><td class="number">{m.rank}</td><td>{face}</td>'
            f'<td class="number">{m.similarity:.4f}</td>{probability}'
            f'<td class="photo">{photo_link(m.photo, m.time)}<br>{box_words(m.face.box)}'
            f"{doubt}{copies}</td></tr>"
        )
