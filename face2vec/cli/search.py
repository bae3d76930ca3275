"""``face2vec search``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from face2vec.cli.common import (
    GalleryPlace,
    Number,
    Place,
    WrittenFile,
    json_lines_option,
    out,
    queries_argument,
    reached,
    runtime_options,
    say,
    say_error,
    verbose_option,
)
from face2vec.cli.exits import DONE, ERROR, PARTLY
from face2vec.errors import NoFaceError, PhotoError
from face2vec.report.text import printable

if TYPE_CHECKING:
    from face2vec.pose import By
    from face2vec.report.matches import QueryResult


@click.command("search")
@click.argument("gallery", type=GalleryPlace(service=True))
@queries_argument
@click.option(
    "-k",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Maximum number of matches for each face.",
)
@click.option("--min-similarity", type=Number(-1, 1), help="Leave out matches below this cosine.")
@click.option(
    "--far",
    type=Number(0, 1, min_open=True),
    help="Leave out matches below the threshold for this false accept rate.",
)
@click.option(
    "--mates",
    type=Number(1e-3, 1e6),
    metavar="NUMBER",
    help="How many faces of the gallery are expected to show the person; estimated if not given.",
)
@click.option(
    "--face",
    "number",
    type=click.IntRange(min=1),
    metavar="N",
    help="Search only the N-th face of each PHOTO, as the output numbers them.",
)
@click.option(
    "--one-person",
    is_flag=True,
    help="All PHOTOs show one person: search once, with the largest face of each.",
)
@click.option(
    "--by",
    type=click.Choice(("pose", "framing")),
    help="Find faces turned the same way, or at the same place in their photos, of anybody.",
)
@click.option("--layout", "layout", type=click.Choice(("pose", "framing")), hidden=True)
@click.option("--person", metavar="WHO", help="With --by: search only faces of this person.")
@json_lines_option
@click.option("--html", "page", type=WrittenFile(), help="Write a page with the matches.")
@click.option("--save", "picture", type=WrittenFile(), help="Draw the matches, .png or .jpg.")
@runtime_options
@verbose_option
@click.pass_context
def search_command(
    ctx: click.Context,
    gallery: Place | str,
    photos: tuple[str, ...],
    k: int,
    min_similarity: float | None,
    far: float | None,
    mates: float | None,
    number: int | None,
    one_person: bool,
    by: By | None,
    layout: By | None,
    person: str | None,
    as_json: bool,
    page: str | None,
    picture: str | None,
    runtime: str,
    threads: int | None,
) -> None:
    """Search a gallery for the faces of each PHOTO.

    Every face in a PHOTO gets its own list of matches. GALLERY is a folder, milvus://HOST/ARCHIVE,
    or the address that 'serve' prints.
    """
    from face2vec.client import Client
    from face2vec.report import matches as report
    from face2vec.report.grid import check_format

    if layout is not None:
        say("--layout is deprecated; use --by")
        by = by or layout
    if number is not None and one_person:
        raise click.UsageError("--face cannot be used with --one-person")
    if (by and one_person) or (person and not by):
        raise click.UsageError("--person needs --by, and --by cannot be used with --one-person")
    if by and isinstance(gallery, str):
        raise click.UsageError("--by needs a gallery on this machine, not the address of a service")
    if mates is not None and (by or isinstance(gallery, str)):
        raise click.UsageError(
            "--mates needs a gallery on this machine, and cannot be used with --by"
        )
    if picture is not None:
        check_format(picture)
    results: list[QueryResult] = []
    unreadable = False
    with reached(gallery, runtime, threads) as engine:
        for query in [list(photos)] if one_person else photos:
            try:
                if by and isinstance(query, str) and not isinstance(engine, Client):
                    found = engine.search_pose(
                        query, k, by=by, person=person, min_similarity=min_similarity, far=far
                    )
                elif isinstance(engine, Client):
                    found = engine.search(query, k, min_similarity=min_similarity, far=far)
                else:
                    found = engine.search(
                        query, k, min_similarity=min_similarity, far=far, mates=mates
                    )
            except PhotoError as error:
                say_error(error)
                unreadable = True
                continue
            except NoFaceError:
                found = []
            if number is not None:
                found = [result for result in found if result.number == number]
            if not found:
                names = query if isinstance(query, str) else ", ".join(query)
                say(
                    f"{printable(names)}: no {'face' if number is None else f'face {number}'} found"
                )
            for result in found:
                out(
                    result.to_json() if as_json else f"{result.title}\n{result.matches.to_text()}\n"
                )
            results += found
    if page is not None:
        report.save_html(results, page)
    if picture is not None and results:
        report.save_grid(results, picture)
    if unreadable:
        ctx.exit(ERROR)
    ctx.exit(DONE if any(result.matches for result in results) else PARTLY)
