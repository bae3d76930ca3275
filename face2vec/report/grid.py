"""A picture of queries and their matches, drawn with matplotlib."""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face2vec.errors import MissingExtraError, SettingsError
from face2vec.files import expanded, writing
from face2vec.report.text import at_words, printable, short_name
from face2vec.report.thumbnails import THUMBNAIL_SIDE, placeholder, thumbnail

if TYPE_CHECKING:
    import os

    from matplotlib.figure import Figure
    from PIL import Image

    from face2vec.types import Match

CELL_INCHES = (1.6, 2.1)
MAX_GRID_ROWS = 300  # matplotlib's limit is 65,536 pixels per side

# Fonts for Chinese, Japanese and Korean, which matplotlib's own font does not cover.
WIDE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Hiragino Sans GB"),
    *("Arial Unicode MS", "Microsoft YaHei", "Malgun Gothic"),
)


def plot_package(package: str, what: str) -> Any:
    """Import a package of ``face2vec[plot]``.

    Args:
        package: name of the package.
        what: what needs it, for the error message.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(what, package.partition(".")[0], "plot") from error


def check_format(path: str | os.PathLike[str]) -> None:
    """Check that a picture can be saved in a file, before it is drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SettingsError: the suffix is not that of a picture format.
    """
    figure: Figure = plot_package("matplotlib.figure", "drawing matches").Figure()
    if Path(path).suffix[1:].lower() not in figure.canvas.get_supported_filetypes():
        raise SettingsError(
            f"{printable(str(path))}: unknown picture format; use the suffix .png or .jpg"
        )


def draw_grid(
    blocks: Sequence[tuple[tuple[Image.Image, str] | None, Sequence[Match]]],
    columns: int,
    path: str | os.PathLike[str] | None,
) -> Figure:
    """Draw each block: a query cell, or none, at the left of its matches.

    Args:
        blocks: (query thumbnail and title, or None; matches) of each query.
        columns: matches per row.
        path: also save the figure to this file.

    Raises:
        MissingExtraError: matplotlib is not installed.
        SettingsError: ``columns`` is below 1, there are too many rows, or the suffix of ``path``
            is not a picture format.
    """
    if columns < 1:
        raise SettingsError(f"columns must be at least 1, not {columns}")
    rows_of = [max(math.ceil(len(matches) / columns), 1) for _, matches in blocks]
    if sum(rows_of) > MAX_GRID_ROWS:
        raise SettingsError(
            f"{sum(rows_of)} rows of faces are too many for one picture (at most "
            f"{MAX_GRID_ROWS}); draw fewer, or write a page with save_html"
        )
    figure_class: type[Figure] = plot_package("matplotlib.figure", "drawing matches").Figure

    class NotebookFigure(figure_class):  # type: ignore[misc, valid-type]
        """A figure that notebooks show without pyplot and its global state."""

        def _repr_png_(self) -> bytes:
            png = io.BytesIO()
            self.savefig(png, format="png")
            return png.getvalue()

    left = int(any(query is not None for query, _ in blocks))
    across = left + max(min(columns, max(len(matches) for _, matches in blocks)), 1)
    width, height = across * CELL_INCHES[0], sum(rows_of) * CELL_INCHES[1]
    figure: Figure = NotebookFigure(figsize=(width, height))
    path = None if path is None else expanded(path)
    if path is not None:
        check_format(path)
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
            show(row, left, placeholder("no match", THUMBNAIL_SIDE), "")
        for n, match in enumerate(matches):
            name = short_name(match.photo) + at_words(match.time)
            title = f"{match.rank}: {match.similarity:.3f}\n{name}"
            image = thumbnail(match.photo, match.face.box, time=match.time)
            show(row + n // columns, left + n % columns, image, title)
        row += rows
    if path is not None:
        with writing(path) as file:
            figure.savefig(file)
    return figure


def _fonts() -> tuple[list[str], list[Any]]:
    """The installed font families for names, and their fonts."""
    manager = plot_package("matplotlib.font_manager", "drawing matches")
    installed = {entry.name for entry in manager.fontManager.ttflist}
    families = ["DejaVu Sans", *(name for name in WIDE_FONTS if name in installed)]
    return families, [manager.get_font(manager.findfont(name)) for name in families]


def _drawable(text: str, fonts: Sequence[Any]) -> str:
    """Text with a box for each character that no font has; matplotlib would warn."""
    return "".join(c if any(f.get_char_index(ord(c)) for f in fonts) else "□" for c in text)
