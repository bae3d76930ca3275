"""The pages. They show what the API answers; their scripts are its first client."""

from __future__ import annotations

import contextlib
import json
import re
import time
from functools import partial
from http import HTTPStatus
from itertools import groupby
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, RedirectResponse, Response

from face2vec.errors import CalibrationError, Face2VecError, SettingsError
from face2vec.gallery import listing
from face2vec.models.catalogue import CATALOGUE
from face2vec.photos.dates import ALWAYS, period
from face2vec.photos.video import is_video
from face2vec.report.text import percent, printable
from face2vec.server import texts
from face2vec.server.access import WRITE
from face2vec.server.api import filtered_people, photo, service_of
from face2vec.server.edits import described
from face2vec.server.problems import NotThereError, ProblemError, problem_of
from face2vec.server.words import calibration_in_words, reason_in_words
from face2vec.types import STATUSES, Edit, clock

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

PEOPLE_PER_PAGE = 60
PHOTOS_PER_PAGE = 60
FACES_PER_PAGE = 200
_YEAR = 365 * 24 * 3600

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _page(request: Request, template: str, code: int = 200, **values: Any) -> HTMLResponse:
    """A page in the language of the browser, or the one that was chosen."""
    language = _language(request)
    catalogue = texts.catalogue(language)
    text = texts.text_of(language)
    service = service_of(request)
    last: list[Edit] = []
    version = service.version()
    mark, forgotten = request.state.mark, 0
    if service.engine.has_gallery:
        with contextlib.suppress(Face2VecError), service.reading() as now:
            forgotten = listing.count_forgotten(now)
            mark += f"-{forgotten}"
            if request.state.role == WRITE:
                last = now.edits(1)

    def month_name(month: str) -> str:
        if month == "-":
            return text("photos.undated")
        return text("photos.month", name=text(f"month.{month[5:7]}"), year=month[:4])

    script = {key: words for key, words in catalogue.items() if key.startswith("js.")}
    facts = {"version": version, "mark": mark, "forgotten": forgotten}
    data = json.dumps({"texts": script, "language": language, **facts})
    body = _TEMPLATES.get_template(template).render(
        t=text,
        language=language,
        languages=texts.languages(),
        number=partial(texts.number, language=language),
        percent=percent,
        printable=printable,
        when=_when,
        moment=_moment,
        in_words=lambda what: described(what, text),
        reason_in_words=lambda reason: printable(reason_in_words(reason, language)),
        edit_record=json.dumps(last[0]._asdict() if last else None),
        last_edit=described(last[0].what, text) if last else "",
        month_name=month_name,
        clock=clock,
        page=template.removesuffix(".html"),
        here=request.url.path,
        can_write=request.state.role == WRITE,
        show_paths=request.state.role == WRITE or service.settings.show_paths,
        # Escaped so that nothing in it can end the element that holds it.
        data=Markup(data.replace("<", "\\u003c").replace("&", "\\u0026")),
        **values,
    )
    return HTMLResponse(body, code, {"Content-Language": language, "Vary": "Accept-Language"})


def problem_page(request: Request, problem: ProblemError) -> Response:
    """A problem as a page with the menu."""
    language = _language(request)
    is_missing = problem.status == HTTPStatus.NOT_FOUND
    heading = "" if is_missing else texts.text_of(language)("problem.heading")
    words = problem.words(language)
    try:
        page = _page(request, "problem.html", problem.status, heading=heading, detail=words)
    except Face2VecError:  # the menu needs the gallery
        return problem.response(language, page=True)
    page.headers.update(problem.headers)
    return page


def _language(request: Request) -> str:
    """The language that was chosen, or that of the browser."""
    return texts.language_asked(request.cookies, request.headers) or texts.DEFAULT


def _when(seconds: float | None) -> str:
    """A time in UTC to the minute, or a dash."""
    if seconds is None:
        return "–"
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _with_code(words: str) -> Markup:
    """A docstring as HTML: what is between two backticks is code."""
    return Markup(re.sub("``(.+?)``", r"<code>\1</code>", str(escape(words))))


def _moment(seconds: float) -> str:
    """A time in UTC as HTML has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@router.get("/")
def search_page(request: Request, face: int | None = None) -> Response:
    """Search with a photo."""
    service = service_of(request)
    if not service.engine.has_gallery:
        return _page(request, "empty.html", roots=_roots(request))
    with service.reading() as now:
        counts = now.counts()
    return _page(request, "search.html", counts=counts, face=face)


@router.get("/people")
def people_page(request: Request, name: str = "", hidden: bool = False, skip: int = 0) -> Response:
    """All people."""
    service = service_of(request)
    if not service.engine.has_gallery:
        return _page(request, "empty.html", roots=_roots(request))
    everyone = service.people()
    some = filtered_people(everyone, name, hidden)
    skip = min(max(skip, 0), max(len(some) - 1, 0) // PEOPLE_PER_PAGE * PEOPLE_PER_PAGE)
    return _page(
        request,
        "people.html",
        people=some[skip : skip + PEOPLE_PER_PAGE],
        total=len(some),
        skip=skip,
        step=PEOPLE_PER_PAGE,
        name=name,
        hidden=hidden,
        hidden_count=sum(one.hidden for one in everyone),
        names=sorted({one.name for one in everyone if one.name is not None}),
    )


@router.get("/people/{person}")
def person_page(request: Request, person: int, skip: int = 0) -> Response:
    """One person."""
    service = service_of(request)
    try:
        found = service.person(person)
    except NotThereError as error:
        return problem_page(request, problem_of(error))
    with service.reading() as now:
        marks = now.marks_of(person)
    names = sorted({one.name for one in service.people() if one.name is not None})
    skip = min(max(skip, 0), max(len(found.faces) - 1, 0) // FACES_PER_PAGE * FACES_PER_PAGE)
    return _page(
        request,
        "person.html",
        person=found,
        marks=marks,
        faces=found.faces[skip : skip + FACES_PER_PAGE],
        total=len(found.faces),
        skip=skip,
        step=FACES_PER_PAGE,
        names=names,
    )


@router.get("/review")
def review_page(request: Request) -> Response:
    """Suggestions to answer."""
    if not service_of(request).engine.has_gallery:
        return _page(request, "empty.html", roots=_roots(request))
    return _page(request, "review.html", grouped=bool(service_of(request).people()))


@router.get("/photos")
def photos_page(
    request: Request,
    status: str = "",
    folder: str = "",
    person: str = "",
    month: str = "",
    order: str = "",
    skip: int = 0,
) -> Response:
    """Photos by status, folder, person, and the month or year in which they were taken."""
    service = service_of(request)
    if not service.engine.has_gallery:
        return _page(request, "empty.html", roots=_roots(request))
    chosen = next((one for one in service.people() if person and person == one.name), None)
    number = chosen.id if chosen else int(person) if person.isdecimal() else -1 if person else None
    may_see = request.state.role == WRITE or service.settings.show_paths
    order = order if order in listing.ORDERS else listing.BY_DATE if month else listing.BY_PATH
    try:
        taken = period(month or None, month or None)
    except SettingsError:
        month, taken = "", ALWAYS
    wanted = listing.Wanted(
        status if status in STATUSES else None,
        (folder or None) if may_see else None,
        number,
        period=taken,
    )
    with service.reading() as now:
        months, undated = listing.months(now), listing.count_undated(now)
        total = listing.count_photos(now, wanted)
        skip = min(max(skip, 0), max(total - 1, 0) // PHOTOS_PER_PAGE * PHOTOS_PER_PAGE)
        found = listing.photo_page(now, wanted, skip, PHOTOS_PER_PAGE, order)
    names = sorted({one.name for one in service.people() if one.name is not None})
    return _page(
        request, "photos.html", photos=found, total=total, skip=skip, step=PHOTOS_PER_PAGE,
        status=status, statuses=STATUSES, folder=folder, person=person, names=names,
        month=month, order=order, years=_years(months), undated=undated,
        groups=_by_month(found) if order == listing.BY_DATE else [("", found)],
    )  # fmt: skip


def _years(months: list[tuple[str, int]]) -> list[tuple[str, int, list[tuple[str, int]]]]:
    """(year, number of photos, its months) of all years with photos, the newest first."""
    dated = [one for one in months if one[0]]
    return [
        (year, sum(count for _, count in some), some)
        for year, some in (
            (year, list(some)) for year, some in groupby(dated, lambda one: one[0][:4])
        )
    ]


def _by_month(
    photos: list[listing.ListedPhoto],
) -> list[tuple[str, list[listing.ListedPhoto]]]:
    """(month such as ``"2024-05"``, or ``"-"``, its photos) of photos in order of date."""
    return [
        (month, list(some)) for month, some in groupby(photos, lambda one: one.taken[:7] or "-")
    ]


@router.get("/photos/{number}")
def photo_page(request: Request, number: int) -> Response:
    """One photo with its faces."""
    try:
        found = photo(request, number)
    except NotThereError as error:
        return problem_page(request, problem_of(error))
    service = service_of(request)
    names = sorted({one.name for one in service.people() if one.name is not None})
    film = False
    try:
        film = is_video(service.photo_file(number))
        missing = ""
    except NotThereError as error:
        missing = problem_of(error).words(_language(request))
    return _page(request, "photo.html", photo=found, names=names, missing=missing, is_video=film)


@router.get("/jobs")
def jobs_page(request: Request) -> Response:
    """Work in the background."""
    service = service_of(request)
    facts = service.engine.info() if service.engine.has_gallery else None
    calibration = None
    if facts is not None:
        with contextlib.suppress(CalibrationError):
            data = service.engine.calibration.data
            calibration = calibration_in_words(data, _language(request))
    own = facts["made_with"]["model"]["key"] if facts else ""
    return _page(
        request,
        "jobs.html",
        roots=_roots(request),
        facts=facts,
        calibration=calibration,
        models=[one for one in CATALOGUE if one != own],
    )


@router.get("/edits")
def edits_page(request: Request) -> Response:
    """The history of edits."""
    service = service_of(request)
    found = []
    if service.engine.has_gallery:
        with service.reading() as now:
            found = now.edits(500)
    return _page(request, "edits.html", edits=found)


@router.get("/docs")
def docs_page(request: Request) -> Response:
    """The API in words."""
    schema = request.app.openapi()
    known = texts.catalogue(_language(request))
    routes = []
    for path, methods in schema["paths"].items():
        for method, facts in methods.items():
            route = f"{method.upper()} {path}"
            words = known.get(f"route.{route}", facts.get("description", facts["summary"]))
            routes.append((route, _with_code(words)))
    return _page(request, "docs.html", routes=routes, version=schema["info"]["version"])


@router.get("/language/{code}")
def choose_language(request: Request, code: str, back: str = "/") -> Response:
    """Keep a language, and go back."""
    # One slash at its start, so that it stays on this site.
    answer = RedirectResponse("/" + back.lstrip("/\\"), 303)
    if code in texts.languages():
        answer.set_cookie(
            texts.COOKIE, code, max_age=_YEAR, httponly=True, samesite="strict", path="/"
        )
    return answer


def _roots(request: Request) -> list[str]:
    return [printable(str(root)) for root in service_of(request).settings.roots]
