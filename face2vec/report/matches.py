"""What a search gives back, as a person reads it: text, tables, pictures, a page.

Nothing here knows how a search is done; photos are opened only to cut
thumbnails from them. pandas and matplotlib come with ``face2vec[plot]``.
"""

from __future__ import annotations

import html
import importlib
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from face2vec.errors import MissingExtraError, PhotoError, SettingsError
from face2vec.report.html import img, photo_link, printable, write_page

if TYPE_CHECKING:
    import os

    import pandas
    from matplotlib.figure import Figure
    from PIL import Image

    from face2vec.photos.decode import PhotoLike
    from face2vec.types import Box, Face, Match

LANDMARK_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
COLUMNS = (
    *("rank", "similarity", "probability", "false_matches", "photo"),
    *("left", "top", "right", "bottom", "confidence"),
    *(f"{name}_{axis}" for name in LANDMARK_NAMES for axis in "xy"),
    *("copies", "face_id"),
)

MARGIN = 0.3  # of the box's longer side, added on each side, so that hair and chin are seen
THUMBNAIL_SIDE = 144  # pixels
READ_SIDE = 1600  # photos are first decoded at this size, which is enough for all but small faces
REPR_ROWS = 20  # a terminal's worth; a table of thumbnails in a notebook shows as many
CELL_INCHES = (1.6, 2.1)
MAX_GRID_ROWS = 300  # matplotlib cannot draw a picture of more than 65,536 pixels a side
GREY = (200, 200, 200)

# Matplotlib's own font has no Chinese, Japanese or Korean; these are what systems bring along.
WIDE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Hiragino Sans GB"),
    *("Arial Unicode MS", "Microsoft YaHei", "Malgun Gothic"),
)


def box_words(box: Box) -> str:
    """A box as whole pixels: ``(left, top, right, bottom)``."""
    return "({}, {}, {}, {})".format(*(round(v) for v in box))


class Matches(Sequence["Match"]):
    """The matches of one query face, best first; immutable.

    Args:
        matches: as the engine ranked them.
    """

    __slots__ = ("_count", "_made", "_make")

    def __init__(self, matches: Iterable[Match] = ()) -> None:
        self._made: tuple[Match, ...] | None = tuple(matches)
        self._make: Callable[[], Iterable[Match]] | None = None
        self._count = len(self._made)

    @classmethod
    def later(cls, count: int, make: Callable[[], Iterable[Match]]) -> Matches:
        """So many matches, made when one of them is first looked at."""
        self = cls.__new__(cls)
        self._made, self._make, self._count = None, make, count
        return self

    @property
    def _matches(self) -> tuple[Match, ...]:
        make, made = self._make, self._made  # in this order: another thread may be making them
        if made is None:
            assert make is not None
            made = self._made = tuple(make())
            self._make = None
        return made

    def __reduce__(self) -> tuple[type[Matches], tuple[tuple[Match, ...]]]:
        return Matches, (self._matches,)

    @overload
    def __getitem__(self, index: int) -> Match: ...
    @overload
    def __getitem__(self, index: slice) -> Matches: ...
    def __getitem__(self, index: int | slice) -> Match | Matches:
        if isinstance(index, slice):
            return Matches(self._matches[index])
        return self._matches[index]

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"Matches({len(self)})\n{self.to_text(REPR_ROWS)}"

    def to_text(self, rows: int | None = None) -> str:
        """An aligned table of rank, similarity and photo; at most ``rows`` of them."""
        if not self:
            return "no match"
        sure, laid_out = self[0].probability is not None, self[0].layout is not None
        before, after = "layout  " if laid_out else "", "probability  " if sure else ""
        lines = [f"rank  {before}similarity  {after}photo"]
        for m in self[:rows]:
            layout = f"{m.layout:>6.4f}  " if m.layout is not None else ""
            probability = f"{m.probability:>11.1%}  " if m.probability is not None else ""
            lines.append(
                f"{m.rank:>4}  {layout}{m.similarity:>10.4f}  {probability}{printable(m.photo)}"
            )
        if rows is not None and len(self) > rows:
            lines.append(f"… {len(self) - rows} more")
        return "\n".join(lines)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One JSON-able dictionary a match.

        The keys are ``rank``, ``similarity``, ``probability``, ``false_matches``, ``photo``,
        ``box`` (left, top, right, bottom), ``landmarks`` (name to [x, y]), ``confidence``,
        ``copies`` and ``face_id``; after a search for layouts also ``layout``.
        """
        return [
            {
                "rank": m.rank,
                "similarity": float(m.similarity),
                "probability": m.probability,
                "false_matches": m.false_matches,
                "photo": m.photo,
                **_face_dict(m.face),
                "copies": list(m.copies),
                "face_id": m.face.id,
                **({} if m.layout is None else {"layout": m.layout}),
            }
            for m in self
        ]

    def to_json(self) -> str:
        """``to_dicts`` as one line of ASCII JSON."""
        return json.dumps(self.to_dicts())

    def to_dataframe(self) -> pandas.DataFrame:
        """A pandas DataFrame, one row a match, the columns of ``COLUMNS``.

        After a search for layouts there is one more, ``layout``.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        frame: type[pandas.DataFrame] = plot_package("pandas", "to_dataframe()").DataFrame
        rows = [
            (
                *(m.rank, float(m.similarity), m.probability, m.false_matches, m.photo),
                *(*m.face.box, m.face.confidence),
                *(value for point in m.face.landmarks for value in point),
                *(m.copies, m.face.id),
            )
            for m in self
        ]
        table = frame(rows, columns=list(COLUMNS))
        if self and self[0].layout is not None:
            table["layout"] = [m.layout for m in self]
        return table

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        query: PhotoLike | None = None,
        columns: int = 5,
    ) -> Figure:
        """A grid of the matched faces, each with its rank, similarity and file name.

        Args:
            path: also saved here, in the format that the suffix names.
            query: a photo to show, whole, at the left.
            columns: matches in a row.

        Raises:
            MissingExtraError: matplotlib is not installed.
            SettingsError: ``columns`` is below 1, or the suffix names no format.
            PhotoError: ``query`` cannot be read.
        """
        cell = None if query is None else (_whole(query), "query")
        return _grid([(cell, self)], columns, path)

    def _repr_html_(self) -> str:
        return _html_table(self[:REPR_ROWS], _more_words(len(self) - REPR_ROWS))


@dataclass(frozen=True, eq=False)
class Found:
    """What was found for one query face.

    Attributes:
        photo: the query's name.
        face: the query face; None when the query was an embedding.
        matches: the gallery's faces most similar to it.
        source: what the query was read from, where that is no file
            (bytes, an image); thumbnails of the query are cut from it.
    """

    photo: str
    face: Face | None
    matches: Matches
    source: Any = field(default=None, repr=False)

    @property
    def title(self) -> str:
        """The query in words: the photo's name and the face's box."""
        if self.face is None:
            return printable(self.photo)
        return f"{printable(self.photo)}, face at {box_words(self.face.box)}"

    def __repr__(self) -> str:
        return f"Found: {self.title}\n{self.matches.to_text(REPR_ROWS)}"

    def to_dict(self) -> dict[str, Any]:
        """``{"query": {photo, box, landmarks, confidence}, "matches": [...]}``, JSON-able."""
        face = {} if self.face is None else _face_dict(self.face)
        return {"query": {"photo": self.photo, **face}, "matches": self.matches.to_dicts()}

    def to_json(self) -> str:
        """``to_dict`` as one line of ASCII JSON."""
        return json.dumps(self.to_dict())

    def to_dataframe(self) -> pandas.DataFrame:
        """The matches as a DataFrame, see `Matches.to_dataframe`."""
        return self.matches.to_dataframe()

    def plot(self, path: str | os.PathLike[str] | None = None, columns: int = 5) -> Figure:
        """The query face at the left, its matches beside it; see `Matches.plot`."""
        return _grid([(self._query_cell(), self.matches)], columns, path)

    def save_html(self, path: str | os.PathLike[str]) -> None:
        """Write a page about this query alone, see `save_html`."""
        save_html([self], path)

    def thumbnail(self, side: int = THUMBNAIL_SIDE) -> Image.Image | None:
        """The query face, ``side`` × ``side`` pixels; None where there is no photo of it."""
        no_file = self.photo.startswith("<") and self.photo.endswith(">")
        if self.face is None or (self.source is None and no_file):
            return None
        return thumbnail(self.photo if self.source is None else self.source, self.face.box, side)

    def _query_cell(self) -> tuple[Image.Image, str] | None:
        image = self.thumbnail()
        return None if image is None else (image, f"query\n{_short_name(self.photo)}")

    def _repr_html_(self) -> str:
        image = self.thumbnail()
        picture = "" if image is None else f"<p>{img(image, 'query face')}</p>"
        return f"<p>{html.escape(self.title)}</p>{picture}{self.matches._repr_html_()}"


def thumbnail(photo: PhotoLike, box: Box, side: int = THUMBNAIL_SIDE) -> Image.Image:
    """The face at ``box`` of ``photo`` with a margin, as an RGB picture to look at.

    The cut is a square around the box with ``MARGIN`` on each side; what lies
    outside the photo is grey. A photo that cannot be read, or no longer holds
    the box, gives a grey square that says "photo not found".

    Args:
        photo: a path, bytes, or an image.
        box: (left, top, right, bottom) in pixels of the upright photo.
        side: of the result, in pixels.
    """
    from PIL import Image, ImageOps

    from face2vec.photos.decode import full_resolution, open_photo

    try:
        opened = open_photo(photo, max_side=READ_SIDE)
        cut_side = (1 + 2 * MARGIN) * max(box[2] - box[0], box[3] - box[1])
        if opened.scale < 1 and cut_side * opened.scale < side:
            opened = full_resolution(opened)
    except PhotoError:
        return _placeholder("photo not found", side)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    if not (0 <= x < opened.width and 0 <= y < opened.height):
        return _placeholder("photo not found", side)
    left, top, right, bottom = (
        round(min(max(edge, 0), length) * opened.scale)
        for edge, length in (
            (x - cut_side / 2, opened.width),
            (y - cut_side / 2, opened.height),
            (x + cut_side / 2, opened.width),
            (y + cut_side / 2, opened.height),
        )
    )
    cut = opened.image[top : max(bottom, top + 1), left : max(right, left + 1)]
    return ImageOps.pad(Image.fromarray(cut), (side, side), color=GREY)


def save_grid(found: Sequence[Found], path: str | os.PathLike[str], columns: int = 5) -> None:
    """Save a picture of every query face with its matches, a row or more each.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SettingsError: nothing to draw, too many rows, or the suffix names no format.
    """
    if not found:
        raise SettingsError(f"there is no query face to draw in {printable(str(path))}")
    _grid([(f._query_cell(), f.matches) for f in found], columns, path)


def save_html(found: Sequence[Found], path: str | os.PathLike[str]) -> None:
    """Write one self-contained page: each query face, its matches, similarity, path and box.

    Styles and thumbnails are inside the file and there is no script; links go
    to the photos where they lie.
    """
    faces = "1 query face" if len(found) == 1 else f"{len(found)} query faces"
    sections = "\n".join(_html_section(n, f) for n, f in enumerate(found, 1))
    write_page(path, "Faces found", _INTRODUCTION.format(faces=faces) + sections)


def _face_dict(face: Face) -> dict[str, Any]:
    return {
        "box": [float(v) for v in face.box],
        "landmarks": {
            name: [float(x), float(y)]
            for name, (x, y) in zip(LANDMARK_NAMES, face.landmarks, strict=True)
        },
        "confidence": float(face.confidence),
    }


def plot_package(package: str, what: str) -> Any:
    """A package of ``face2vec[plot]``.

    Raises:
        MissingExtraError: it is not installed; ``what`` is what needs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(what, package.partition(".")[0], "plot") from error


def _short_name(photo: str, limit: int = 22) -> str:
    name = printable(Path(photo).name or photo)
    return name if len(name) <= limit else f"{name[: limit - 9]}…{name[-8:]}"


def _placeholder(words: str, side: int) -> Image.Image:
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (side, side), GREY)
    ImageDraw.Draw(image).multiline_text(
        (side / 2, side / 2),
        words.replace(" ", "\n"),
        fill=(60, 60, 60),
        font=ImageFont.load_default(max(side // 7, 8)),
        anchor="mm",
        align="center",
    )
    return image


def _whole(photo: PhotoLike) -> Image.Image:
    from PIL import Image, ImageOps

    from face2vec.photos.decode import open_photo

    image = Image.fromarray(open_photo(photo, max_side=READ_SIDE).image)
    return ImageOps.pad(image, (THUMBNAIL_SIDE * 2, THUMBNAIL_SIDE * 2), color=GREY)


# --- pictures -------------------------------------------------------------------------------


def _grid(
    blocks: Sequence[tuple[tuple[Image.Image, str] | None, Matches]],
    columns: int,
    path: str | os.PathLike[str] | None,
) -> Figure:
    """Draw each block as a query cell (or none) at the left of its matches."""
    if columns < 1:
        raise SettingsError(f"columns must be 1 or more, got {columns}")
    rows_of = [max(math.ceil(len(matches) / columns), 1) for _, matches in blocks]
    if sum(rows_of) > MAX_GRID_ROWS:
        raise SettingsError(
            f"{sum(rows_of)} rows of faces are too many for one picture (at most "
            f"{MAX_GRID_ROWS}); draw fewer, or write a page with save_html"
        )
    figure_class: type[Figure] = plot_package("matplotlib.figure", "drawing matches").Figure

    class NotebookFigure(figure_class):  # type: ignore[misc, valid-type]
        """A figure that a notebook shows although pyplot, with its global state, is not used."""

        def _repr_png_(self) -> bytes:
            png = io.BytesIO()
            self.savefig(png, format="png")
            return png.getvalue()

    left = int(any(query is not None for query, _ in blocks))
    across = left + max(min(columns, max(len(matches) for _, matches in blocks)), 1)
    width, height = across * CELL_INCHES[0], sum(rows_of) * CELL_INCHES[1]
    figure: Figure = NotebookFigure(figsize=(width, height))
    suffix = None if path is None else Path(path).suffix[1:].lower()
    if suffix is not None and suffix not in figure.canvas.get_supported_filetypes():
        raise SettingsError(
            f"{printable(str(path))}: the suffix names no picture format; end it in .png or .jpg"
        )
    axes = figure.subplots(sum(rows_of), across, squeeze=False)
    figure.subplots_adjust(0.02, 0.04 / sum(rows_of), 0.98, 1 - 0.5 / height, 0.1, 0.36)
    for cell in axes.flat:
        cell.axis("off")

    families, fonts = _fonts()

    def show(row: int, column: int, image: Image.Image, title: str) -> None:
        lines = "\n".join(_drawable(line, fonts) for line in title.split("\n"))
        cell = axes[row, column]
        cell.imshow(image)
        cell.set_title(lines, fontsize=8, fontfamily=families, parse_math=False)

    row = 0
    for (query, matches), rows in zip(blocks, rows_of, strict=True):
        if query is not None:
            show(row, 0, *query)
        if not matches:
            show(row, left, _placeholder("no match", THUMBNAIL_SIDE), "")
        for n, match in enumerate(matches):
            title = f"{match.rank}: {match.similarity:.3f}\n{_short_name(match.photo)}"
            image = thumbnail(match.photo, match.face.box)
            show(row + n // columns, left + n % columns, image, title)
        row += rows
    if path is not None:
        figure.savefig(path)
    return figure


def _fonts() -> tuple[list[str], list[Any]]:
    """The font families to draw names in that are on this machine, and the fonts themselves."""
    manager = plot_package("matplotlib.font_manager", "drawing matches")
    installed = {entry.name for entry in manager.fontManager.ttflist}
    families = ["DejaVu Sans", *(name for name in WIDE_FONTS if name in installed)]
    return families, [manager.get_font(manager.findfont(name)) for name in families]


def _drawable(text: str, fonts: Sequence[Any]) -> str:
    """``text`` with a box for each character that no font has, as matplotlib would warn of it."""
    return "".join(c if any(f.get_char_index(ord(c)) for f in fonts) else "□" for c in text)


# --- pages ----------------------------------------------------------------------------------

_INTRODUCTION = """<p>{faces}. Similarity is the cosine of two embeddings, from −1 to 1; higher is
more similar. Boxes are left, top, right and bottom in pixels of the upright photo.</p>
"""


def _html_section(number: int, found: Found) -> str:
    name = html.escape(_short_name(found.photo, 80))
    image = found.thumbnail()
    where = photo_link(found.photo)
    if found.face is not None:
        where += f", face at {box_words(found.face.box)}"
    picture = "" if image is None else img(image, f"Query face in {_short_name(found.photo)}")
    caption = "The faces of the gallery most similar to it, best first"
    return (
        f'<section aria-labelledby="query-{number}">\n'
        f'<h2 id="query-{number}">{number}. <bdi>{name}</bdi></h2>\n'
        f"{picture}\n<p>{where}</p>\n{_html_table(found.matches, caption)}\n</section>"
    )


def _html_table(matches: Matches, caption: str) -> str:
    if not matches:
        return "<p>No match.</p>"
    sure = ("Probability",) if matches[0].probability is not None else ()
    titles = ("Rank", "Face", "Similarity", *sure, "Photo")
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    rows = "\n".join(_html_rows(matches))
    title = f"<caption>{caption}</caption>" if caption else ""
    return f"<table>{title}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _html_rows(matches: Matches) -> Iterator[str]:
    for m in matches:
        name = _short_name(m.photo)
        face = img(thumbnail(m.photo, m.face.box), f"Match {m.rank}, face in {name}")
        known = m.probability is not None
        probability = f'<td class="number">{m.probability:.1%}</td>' if known else ""
        copies = "".join(f"<br>the same file: {photo_link(copy)}" for copy in m.copies)
        yield (
            f'<tr><td class="number">{m.rank}</td><td>{face}</td>'
            f'<td class="number">{m.similarity:.4f}</td>{probability}'
            f'<td class="photo">{photo_link(m.photo)}<br>{box_words(m.face.box)}{copies}</td></tr>'
        )


def _more_words(count: int) -> str:
    return f"{count} more are not shown" if count > 0 else ""
