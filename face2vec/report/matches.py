"""The results of a search: `Matches` and `QueryResult`, as text, JSON, table, picture and page.

pandas and matplotlib come with ``face2vec[plot]``.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, overload

from face2vec.errors import SettingsError
from face2vec.report.grid import draw_grid, plot_package
from face2vec.report.html import boxes_on, img, match_table, photo_link, write_page
from face2vec.report.text import at_words, box_words, percent, printable, short_name
from face2vec.report.thumbnails import THUMBNAIL_SIDE, thumbnail, whole_photo

if TYPE_CHECKING:
    import os

    import pandas
    from matplotlib.figure import Figure
    from PIL import Image

    from face2vec.photos.sources import PhotoLike
    from face2vec.types import Face, Match

LANDMARK_NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
COLUMNS = (
    *("rank", "similarity", "probability", "false_matches", "photo"),
    *("left", "top", "right", "bottom", "confidence"),
    *(f"{name}_{axis}" for name in LANDMARK_NAMES for axis in "xy"),
    *("copies", "face_id", "time"),
)

REPR_ROWS = 20  # rows that a repr shows, and a notebook

UNFOLDED = 8
"""Query faces whose matches are unfolded on a page."""
_INTRODUCTION = """<p>{faces}. Similarity is the cosine of two embeddings, from −1 to 1; higher is
more similar. Boxes are left, top, right and bottom in pixels of the upright photo.</p>
"""


class Matches(Sequence["Match"]):
    """The matches of one query face, best first. Immutable.

    Args:
        matches: in order of rank.
    """

    __slots__ = ("_count", "_made", "_make")

    def __init__(self, matches: Iterable[Match] = ()) -> None:
        self._made: tuple[Match, ...] | None = tuple(matches)
        self._make: Callable[[], Iterable[Match]] | None = None
        self._count = len(self._made)

    @classmethod
    def later(cls, count: int, make: Callable[[], Iterable[Match]]) -> Matches:
        """``count`` matches that ``make`` returns at the first access."""
        self = cls.__new__(cls)
        self._made, self._make, self._count = None, make, count
        return self

    @property
    def _matches(self) -> tuple[Match, ...]:
        make, made = self._make, self._made  # in this order, because another thread may set them
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
        """A table of rank, similarity and photo as text, with at most ``rows`` rows."""
        if not self:
            return "no match"
        sure, posed = self[0].probability is not None, self[0].pose_distance is not None
        before, after = "pose distance  " if posed else "", "probability  " if sure else ""
        lines = [f"rank  {before}similarity  {after}photo"]
        for m in self[:rows]:
            distance = f"{m.pose_distance:>13.4f}  " if m.pose_distance is not None else ""
            probability = f"{percent(m.probability):>11}  " if m.probability is not None else ""
            doubt = f"  (less certain: {'; '.join(m.outside)})" if m.outside else ""
            lines.append(
                f"{m.rank:>4}  {distance}{m.similarity:>10.4f}  {probability}"
                f"{printable(m.photo)}{at_words(m.time)}{doubt}"
            )
        if rows is not None and len(self) > rows:
            lines.append(f"… {len(self) - rows} more")
        return "\n".join(lines)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One JSON-able dictionary per match.

        The keys are ``rank``, ``similarity``, ``probability``, ``false_matches``, ``outside``,
        ``photo``, ``box`` (left, top, right, bottom), ``landmarks`` (name to [x, y]),
        ``confidence``, ``quality``, ``parts``, ``time`` (of a face in a video, seconds; otherwise
        None), ``track`` (begin and end in seconds, or None), ``copies`` and ``face_id``; after a
        search by pose also ``pose_distance``.
        """
        return [
            {
                "rank": m.rank,
                "similarity": float(m.similarity),
                "probability": m.probability,
                "false_matches": m.false_matches,
                "outside": list(m.outside),
                "photo": m.photo,
                **face_dict(m.face),
                "copies": list(m.copies),
                "face_id": m.face.id,
                **({} if m.pose_distance is None else {"pose_distance": m.pose_distance}),
            }
            for m in self
        ]

    def to_json(self) -> str:
        """``to_dicts`` as one line of ASCII JSON."""
        return json.dumps(self.to_dicts())

    def to_dataframe(self) -> pandas.DataFrame:
        """A pandas DataFrame with one row per match and the columns ``COLUMNS``.

        After a search by pose it also has ``pose_distance``.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        frame: type[pandas.DataFrame] = plot_package("pandas", "to_dataframe()").DataFrame
        rows = [
            (
                *(m.rank, float(m.similarity), m.probability, m.false_matches, m.photo),
                *(*m.face.box, m.face.confidence),
                *(value for point in m.face.landmarks for value in point),
                *(m.copies, m.face.id, m.time),
            )
            for m in self
        ]
        table = frame(rows, columns=list(COLUMNS))
        if self and self[0].pose_distance is not None:
            table["pose_distance"] = [m.pose_distance for m in self]
        return table

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        query: PhotoLike | None = None,
        columns: int = 5,
    ) -> Figure:
        """Draw the matched faces with rank, similarity and file name.

        Args:
            path: also save the figure to this file, in the format of its suffix.
            query: a photo to show at the left.
            columns: matches per row.

        Raises:
            MissingExtraError: matplotlib is not installed.
            SettingsError: ``columns`` is below 1, or the suffix is not a picture format.
            PhotoError: ``query`` cannot be read.
        """
        cell = None if query is None else (whole_photo(query), "query")
        return draw_grid([(cell, self)], columns, path)

    def _repr_html_(self) -> str:
        return match_table(self[:REPR_ROWS], _more_words(len(self) - REPR_ROWS))


@dataclass(frozen=True, eq=False)
class QueryResult:
    """The result for one query face.

    Attributes:
        photo: name of the query.
        face: the query face; None if the query was an embedding.
        matches: the most similar faces of the gallery.
        source: what the query was read from if it is not a file, such as bytes or an image.
        number: place of the face among those of the query, from 1.
        count: number of faces of the query.
        mates: number of faces of the gallery that were expected to show the query's person, on
            which the probabilities rest; None without a calibration.
    """

    photo: str
    face: Face | None
    matches: Matches
    source: Any = field(default=None, repr=False)
    number: int = 1
    count: int = 1
    mates: float | None = None

    @property
    def title(self) -> str:
        """Name of the photo, number of the face if there are several, and its box, as text."""
        return f"{printable(self.photo)}{self._which}"

    @property
    def _which(self) -> str:
        """Which face of the photo it is, in words."""
        if self.face is None:
            return ""
        number = f" {self.number} of {self.count}" if self.count > 1 else ""
        return f", face{number} at {box_words(self.face.box)}"

    def __repr__(self) -> str:
        return f"QueryResult: {self.title}\n{self.matches.to_text(REPR_ROWS)}"

    def to_dict(self) -> dict[str, Any]:
        """``{"query": {photo, number, box, …}, "matches": […], "mates": …}``, JSON-able."""
        face = {} if self.face is None else {"number": self.number, **face_dict(self.face)}
        return {
            "query": {"photo": self.photo, **face},
            "matches": self.matches.to_dicts(),
            "mates": self.mates,
        }

    def to_json(self) -> str:
        """``to_dict`` as one line of ASCII JSON."""
        return json.dumps(self.to_dict())

    def to_dataframe(self) -> pandas.DataFrame:
        """The matches as a DataFrame, see `Matches.to_dataframe`."""
        return self.matches.to_dataframe()

    def plot(self, path: str | os.PathLike[str] | None = None, columns: int = 5) -> Figure:
        """Draw the query face at the left of its matches; see `Matches.plot`."""
        return draw_grid([(self._query_cell(), self.matches)], columns, path)

    def save_html(self, path: str | os.PathLike[str]) -> None:
        """Write a page with this result, see `save_html`."""
        save_html([self], path)

    def thumbnail(self, side: int = THUMBNAIL_SIDE) -> Image.Image | None:
        """The query face, ``side`` × ``side`` pixels; None if there is no photo of it."""
        no_file = self.photo.startswith("<") and self.photo.endswith(">")
        if self.face is None or (self.source is None and no_file):
            return None
        return thumbnail(self.photo if self.source is None else self.source, self.face.box, side)

    def _query_cell(self) -> tuple[Image.Image, str] | None:
        image = self.thumbnail()
        return None if image is None else (image, f"query\n{short_name(self.photo)}")

    def _repr_html_(self) -> str:
        image = self.thumbnail()
        picture = "" if image is None else f"<p>{img(image, 'query face')}</p>"
        return f"<p>{html.escape(self.title)}</p>{picture}{self.matches._repr_html_()}"


def save_grid(found: Sequence[QueryResult], path: str | os.PathLike[str], columns: int = 5) -> None:
    """Save a picture of all query faces with their matches.

    Args:
        found: results of searches.
        path: the file, in the format of its suffix.
        columns: matches per row.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SettingsError: there are no results or too many rows, or the suffix is not a picture
            format.
    """
    if not found:
        raise SettingsError(f"there are no results to draw in {printable(str(path))}")
    draw_grid([(f._query_cell(), f.matches) for f in found], columns, path)


def save_html(found: Sequence[QueryResult], path: str | os.PathLike[str]) -> None:
    """Write one self-contained page: each query face with its matches.

    A photo with several faces is shown once, with numbered boxes and a list of its faces; the first
    faces are unfolded. Styles and thumbnails are inside the file, without any script. Links go to
    the photo files.

    Args:
        found: results of searches.
        path: the file.
    """
    faces = "1 query face" if len(found) == 1 else f"{len(found)} query faces"
    parts = [_INTRODUCTION.format(faces=faces)]
    for number, one in enumerate(found, 1):
        is_first = number == 1 or found[number - 2].photo != one.photo
        if is_first and one.count > 1:
            same = [other for other in found[number - 1 :] if other.photo == one.photo]
            parts.append(_overview(number, same))
        parts.append(_section(number, one, is_open=number <= UNFOLDED))
    write_page(path, "Faces found", "\n".join(parts))


def face_dict(face: Face) -> dict[str, Any]:
    """JSON-able values of a face: box, landmarks, confidence, quality, its parts, time, track."""
    return {
        "box": [float(v) for v in face.box],
        "landmarks": {
            name: [float(x), float(y)]
            for name, (x, y) in zip(LANDMARK_NAMES, face.landmarks, strict=True)
        },
        "confidence": float(face.confidence),
        "quality": None if face.quality is None else float(face.quality),
        "parts": None if face.parts is None else asdict(face.parts),
        "time": face.time,
        "track": None if face.track is None else list(face.track),
    }


def _overview(first: int, found: Sequence[QueryResult]) -> str:
    """A photo with the numbered boxes of its faces, and links to their sections.

    Args:
        first: number of the first section.
        found: the results for its faces.
    """
    one = found[0]
    faces = [(number, o.face) for number, o in enumerate(found, first) if o.face is not None]
    picture = boxes_on(
        one.photo if one.source is None else one.source,
        [(number, face.box) for number, face in faces],
        f"{short_name(one.photo)} with numbered boxes around {len(faces)} faces",
    )
    links = " ".join(f'<a href="#query-{number}">Face {number}</a>' for number, _ in faces)
    name = html.escape(short_name(one.photo, 80))
    return f'<nav aria-label="Faces of {name}">{picture}\n<p>{links}</p></nav>'


def _section(number: int, found: QueryResult, *, is_open: bool) -> str:
    name = html.escape(short_name(found.photo, 80))
    image = found.thumbnail()
    where = photo_link(found.photo) + html.escape(found._which)
    picture = "" if image is None else img(image, f"Query face in {short_name(found.photo)}")
    caption = "The faces of the gallery most similar to it, best first"
    count = len(found.matches)
    return (
        f'<section aria-labelledby="query-{number}">\n'
        f'<h2 id="query-{number}">{number}. <bdi>{name}</bdi></h2>\n'
        f"{picture}\n<p>{where}</p>\n"
        f"<details{' open' if is_open else ''}><summary>"
        f"{'1 match' if count == 1 else f'{count} matches'}</summary>\n"
        f"{match_table(found.matches, caption)}\n</details>\n</section>"
    )


def _more_words(count: int) -> str:
    return f"{count} more are not shown" if count > 0 else ""
