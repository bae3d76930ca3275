"""The routes of the API, below ``/v1``."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
from fastapi import APIRouter, Body, File, Form, Request, UploadFile
from fastapi import Path as PathValue
from fastapi import Query as Parameter
from numpy.typing import NDArray
from starlette.responses import Response, StreamingResponse

from face2vec.engine import Face2Vec
from face2vec.errors import CalibrationError, NoFaceError, OtherEditError, SettingsError
from face2vec.files import composed, trimmed
from face2vec.gallery import listing
from face2vec.photos.dates import period
from face2vec.report.text import printable
from face2vec.server import records as r
from face2vec.server import texts
from face2vec.server.access import WRITE
from face2vec.server.edits import described
from face2vec.server.jobs import Job
from face2vec.server.problems import ProblemError, problem_of
from face2vec.server.service import THUMBNAIL_SIDES, EncodedUpload, Filter, Service
from face2vec.server.words import job_in_words
from face2vec.types import (
    ANY_NAME,
    NAMED_AT_LEAST,
    NO_PLACE,
    NO_POINTS,
    STATUSES,
    Edit,
    Face,
    Mark,
    Match,
    Person,
    Suggestion,
)

router = APIRouter(
    prefix="/v1",
    responses={
        code: {
            "model": r.ProblemRecord,
            "content": {"application/problem+json": {}},
            "description": what,
        }
        for code, what in {
            400: "The request is no valid HTTP or JSON",
            401: "No token, or a wrong one",
            403: "Not allowed with this token, or from another site",
            404: "Not in the gallery",
            405: "Another method is needed",
            408: "The body did not arrive in time",
            409: "The gallery is being written or has another model, or another edit is the last",
            413: "The body is too large",
            415: "Another kind of body is needed",
            421: "The host name is not one of this service",
            422: "The request or the photo is invalid",
            429: "Too many requests",
            501: "A package is missing",
            503: "Too many photos are waiting",
            507: "The disk is full",
        }.items()
    },
)

Id = Annotated[int, PathValue(ge=1, lt=2**63)]
Upload = Annotated[UploadFile, File(description="a photo")]
Language = Annotated[
    str | None, Parameter(max_length=20, description="language of `words`, such as de")
]
PING_SECONDS = 15.0
TURN_SECONDS, TURNS_PER_VERSION = 0.25, 4
"""How often an event stream looks for changes of jobs, and of the gallery."""
A_DAY = "a year, month or day such as 2024-05"
WEBP: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/webp": {}}, "description": "A picture"}
}


def service_of(request: Request) -> Service:
    """The service that answers a request."""
    found: Service = request.app.state.service
    return found


def may_see_paths(request: Request) -> bool:
    """Whether whoever asks may see where files are."""
    return request.state.role == WRITE or service_of(request).settings.show_paths


def _language(request: Request) -> str | None:
    """The language that a request asks for, or None."""
    return texts.language_asked(request.cookies, request.headers)


def _path(request: Request, path: str) -> str | None:
    return path.encode("utf-8", "replace").decode() if may_see_paths(request) else None


# Queries


@router.post("/detect")
def detect(
    request: Request, photo: Upload, preview: Annotated[bool, Form()] = False
) -> r.PhotoFaces:
    """The faces of a photo."""
    return _photo_faces(request, photo, preview, with_embeddings=False)


@router.post("/encode")
def encode(
    request: Request, photo: Upload, preview: Annotated[bool, Form()] = False
) -> r.PhotoFaces:
    """The faces of a photo with their embeddings."""
    return _photo_faces(request, photo, preview, with_embeddings=True)


def _photo_faces(
    request: Request, photo: UploadFile, preview: bool, *, with_embeddings: bool
) -> r.PhotoFaces:
    name, done = _encoded(request, photo, preview)
    shown = None
    if preview:
        shown = "data:image/webp;base64," + base64.b64encode(done.upload.preview).decode()
    return r.PhotoFaces(
        photo=name,
        width=done.upload.width,
        height=done.upload.height,
        damage=done.upload.damage,
        faces=[
            r.FaceRecord.of(face, number, with_embedding=with_embeddings)
            for number, face in enumerate(done.faces, 1)
        ],
        chosen=None if done.chosen is None else done.chosen + 1,
        dropped=done.dropped,
        sha256=done.sha256.hex(),
        model=service_of(request).engine.encoder.model.fingerprint.digest,
        preview=shown,
    )


def _encoded(request: Request, photo: UploadFile, preview: bool) -> tuple[str, EncodedUpload]:
    name = (photo.filename or "photo")[:200].encode("utf-8", "replace").decode()
    return name, service_of(request).encode(photo.file.read(), name, preview=preview)


@router.post("/search")
def search(request: Request, wanted: r.SearchRequest) -> r.SearchAnswer:
    """The most similar faces of the gallery, for faces of the gallery or embeddings."""
    service = service_of(request)
    _check_batch(service, wanted.queries)
    queries = [_query_of(service, one) for one in wanted.queries]
    if wanted.one_person:
        rows = [_embedding(service, one) for one in queries]
        if len({len(row) for row in rows}) > 1:
            _refuse("the embeddings have different dimensions")
        mean = np.mean(rows, axis=0)
        length = float(np.linalg.norm(mean))
        if not length:
            _refuse("the mean of the embeddings has length 0")
        queries = [np.asarray(mean / length, np.float32)]
    own = {one.face for one in wanted.queries if one.face is not None}
    sought = Filter(
        _matches_wanted(service, wanted.k),
        wanted.far,
        wanted.min_similarity,
        wanted.person,
        wanted.folder,
        frozenset(wanted.without) | own,
        period(wanted.since, wanted.until),
    )
    sha256 = bytes.fromhex(wanted.query_sha256) if wanted.query_sha256 else b""
    return r.SearchAnswer(
        results=[
            r.Matches(matches=_match_records(request, service.search(one, sought), sha256))
            for one in queries
        ],
        **_rests_on(service),
    )


@router.post("/search/photo")
def search_photo(
    request: Request,
    photo: Upload,
    k: Annotated[int, Form(ge=1)] = 10,
    far: Annotated[float | None, Form(gt=0, le=1)] = None,
    face: Annotated[int | None, Form(ge=1, description="number of one face; all without")] = None,
) -> r.PhotoSearch:
    """The most similar faces of the gallery, for the faces of a photo."""
    service = service_of(request)
    name, done = _encoded(request, photo, False)
    some = list(enumerate(done.faces, 1))
    if face is not None:
        if face > len(some):
            faces = "1 face" if len(some) == 1 else f"{len(some)} faces"
            _refuse(f"{name} has {faces}, so there is no face {face}")
        some = some[face - 1 : face]
    sought = Filter(_matches_wanted(service, k), far)
    return r.PhotoSearch(
        photo=name,
        results=[
            r.PhotoMatches(
                query=r.FaceRecord.of(one, number),
                matches=_match_records(request, service.search(one, sought), done.sha256),
            )
            for number, one in some
        ],
        **_rests_on(service),
    )


@router.post("/verify")
def verify(request: Request, wanted: r.VerifyRequest) -> r.Verifications:
    """Whether pairs of faces show one person."""
    service = service_of(request)
    _check_batch(service, wanted.pairs)
    found = []
    for pair in wanted.pairs:
        first, second = (_query_of(service, one) for one in (pair.first, pair.second))
        found.append(_verification(request, first, second, wanted.far))
    return r.Verifications(results=found)


@router.post("/verify/photos")
def verify_photos(
    request: Request,
    first: Upload,
    second: Upload,
    far: Annotated[float, Form(gt=0, le=1)] = 1e-3,
) -> r.VerificationRecord:
    """Whether the largest sure faces of two photos show one person."""
    one, other = (_largest_face(request, photo) for photo in (first, second))
    return _verification(request, one, other, far)


def _largest_face(request: Request, photo: UploadFile) -> Face:
    name, done = _encoded(request, photo, False)
    if done.chosen is None:
        raise NoFaceError(f"no face was found in {name}").coded("no-face-found", photo=name)
    return done.faces[done.chosen]


@router.post("/identify")
def identify(request: Request, wanted: r.IdentifyRequest) -> r.Identifications:
    """Who faces are, among the people with names."""
    service = service_of(request)
    _check_batch(service, wanted.queries)
    faces = [_query_of(service, one) for one in wanted.queries]
    return r.Identifications(
        results=[
            _identified(service, _as_face(service, one), wanted.at_least, with_box=False)
            for one in faces
        ]
    )


@router.post("/identify/photo")
def identify_photo(
    request: Request,
    photo: Upload,
    at_least: Annotated[float, Form(ge=0, le=1)] = NAMED_AT_LEAST,
) -> r.Identifications:
    """Who the faces of a photo are, among the people with names."""
    service = service_of(request)
    _, done = _encoded(request, photo, False)
    return r.Identifications(
        results=[_identified(service, face, at_least, with_box=True) for face in done.faces]
    )


# Photos and faces


@router.get("/photos")
def photos(
    request: Request,
    status: str | None = None,
    folder: Annotated[str | None, Parameter(max_length=4096)] = None,
    person: Annotated[int | None, Parameter(ge=1, lt=2**63)] = None,
    since: Annotated[str | None, Parameter(alias="from", max_length=40, description=A_DAY)] = None,
    until: Annotated[str | None, Parameter(alias="to", max_length=40, description=A_DAY)] = None,
    order: Literal["path", "date"] = "path",
    skip: Annotated[int, Parameter(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Parameter(ge=1, le=500)] = 60,
) -> r.PhotoPage:
    """Photos of the gallery, in order of path, or the newest first."""
    if status is not None and status not in STATUSES:
        _refuse(f"unknown status {status!r}; choose one of {', '.join(STATUSES)}")
    if folder is not None and not may_see_paths(request):
        raise ProblemError(403, "this token may not see paths", "read-only")
    wanted = listing.Wanted(status, folder, person, period=period(since, until))
    with service_of(request).reading() as now:
        found = listing.photo_page(now, wanted, skip, limit, order)
        total = listing.count_photos(now, wanted)
    return r.PhotoPage(photos=[_photo_record(request, one) for one in found], total=total)


@router.get("/photos/months")
def months(request: Request) -> r.Months:
    """How many photos were taken in each month."""
    with service_of(request).reading() as now:
        found = listing.months(now)
    return r.Months(months=[r.Month(month=month, photos=count) for month, count in found])


@router.get("/photos/{photo}")
def photo(request: Request, photo: Id) -> r.PhotoWithFaces:
    """A photo with its faces."""
    service = service_of(request)
    copies = service.photo(photo)
    with service.reading() as now:
        owners = dict(listing.faces_in(now, photo))
        stored = now.stored_faces(list(owners), with_embeddings=False)
        marks = now.marks(photo)
    names = {person.id: person.name for person in service.people()}
    first = _photo_record(request, copies[0]).model_dump()
    paths = [path for one in copies if (path := _path(request, one.path)) is not None]
    faces = [
        _face_of_photo(one.face, owners[one.face.id or 0], names)
        for one in stored
        if one.face.is_placed
    ]
    return r.PhotoWithFaces(
        **first,
        face_list=faces,
        marks=[_mark_record(mark, names) for mark in marks],
        paths=paths,
    )


@router.post("/photos/{photo}/faces", status_code=201)
def mark_face(request: Request, photo: Id, wanted: r.NewFace) -> r.MarkedRecord:
    """Add a face that the detector missed; without landmarks it becomes a mark, see there."""
    service = service_of(request)
    path = service.photo_file(photo)
    marked = service.edit(lambda engine: engine.mark_face(path, wanted.box))
    _audit(request, f"mark a face by hand in photo {photo}")
    return r.MarkedRecord(**marked._asdict())


@router.patch("/marks/{mark}")
def name_mark(request: Request, mark: Id, wanted: r.MarkChange) -> r.MarkRecord:
    """Say whom a face without landmarks shows, by name; null for nobody."""
    service = service_of(request)
    service.mark(mark)
    person = service.edit(lambda engine: engine.name_mark(mark, wanted.name or None))
    _audit(request, f"name mark {mark}" + _called(request, wanted.name))
    return _mark_record(service.mark(mark), {} if person is None else {person.id: person.name})


@router.get("/marks/{mark}/thumbnail", response_class=Response, responses=WEBP)
def mark_thumbnail(request: Request, mark: Id, side: int = THUMBNAIL_SIDES[1]) -> Response:
    """A face without landmarks to look at, as WebP."""
    _check_side(side)
    return _picture(service_of(request).mark_thumbnail(mark, side))


@router.delete("/marks/{mark}")
def delete_mark(request: Request, mark: Id) -> r.Removed:
    """Delete a face without landmarks."""
    service = service_of(request)
    service.mark(mark)
    service.edit(lambda engine: engine.unmark(mark))
    _audit(request, f"delete mark {mark}")
    return r.Removed(photos=0, faces=1)


@router.get("/photos/{photo}/picture", response_class=Response, responses=WEBP)
def picture(
    request: Request, photo: Id, side: Annotated[int, Parameter(ge=16, le=2400)] = 1280
) -> Response:
    """A photo to look at, as WebP."""
    return _picture(service_of(request).photo_picture(photo, side))


@router.delete("/photos/{photo}")
def remove_photo(request: Request, photo: Id) -> r.Removed:
    """Remove a photo and its copies from the gallery; the files stay."""
    service = service_of(request)
    paths = [one.path for one in service.photo(photo)]
    done = service.edit(lambda engine: engine.remove(paths))
    _audit(request, f"remove photo {photo}")
    return r.Removed(photos=done.photos, faces=done.faces)


@router.get("/faces/{face}")
def face(request: Request, face: Id) -> r.GalleryFace:
    """A face of the gallery."""
    service = service_of(request)
    one = service.face(face)
    with service.reading() as now:
        owner, content = listing.person_of(now, face), listing.content_of_face(now, face)
    names = {person.id: person.name for person in service.people()}
    record = r.FaceRecord.of(one.face, 1)
    return r.GalleryFace(
        **_face_of_photo(one.face, owner, names).model_dump(),
        photo=content or 0,
        path=_path(request, one.photo),
        parts=record.parts,
    )


@router.get("/faces/{face}/thumbnail", response_class=Response, responses=WEBP)
def thumbnail(request: Request, face: Id, side: int = THUMBNAIL_SIDES[1]) -> Response:
    """A face to look at, as WebP."""
    _check_side(side)
    return _picture(service_of(request).thumbnail(face, side))


@router.delete("/faces/{face}")
def ignore_face(request: Request, face: Id) -> r.Removed:
    """State that a face is no face, such as a doll's; it leaves the gallery."""
    service = service_of(request)
    service.face(face)
    done = service.edit(lambda engine: engine.ignore(face))
    _audit(request, f"ignore face {face}")
    return r.Removed(photos=done.photos, faces=done.faces)


@router.post("/faces/ignore")
def ignore_faces(request: Request, wanted: r.Faces) -> r.Removed:
    """State that faces are no faces, in one edit; they leave the gallery."""
    done = service_of(request).edit(lambda engine: engine.ignore(*wanted.faces))
    _audit(request, f"ignore faces {wanted.faces}")
    return r.Removed(photos=done.photos, faces=done.faces)


# People


@router.get("/people")
def people(
    request: Request,
    name: Annotated[str | None, Parameter(max_length=4096)] = None,
    hidden: bool = False,
    named: bool | None = None,
    with_faces: bool = False,
    skip: Annotated[int, Parameter(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Parameter(ge=1, le=500)] = 60,
) -> r.PeoplePage:
    """People: named ones first, then by number of faces."""
    some = filtered_people(service_of(request).people(), name, hidden, named)
    return r.PeoplePage(
        people=[r.PersonRecord.of(one, with_faces=with_faces) for one in some[skip : skip + limit]],
        total=len(some),
    )


def filtered_people(
    everyone: Sequence[Person], name: str | None, hidden: bool, named: bool | None = None
) -> list[Person]:
    """Those whose name contains a text, that are hidden or not, and have a name or not."""
    part = (name or "").casefold()
    return [
        one
        for one in everyone
        if (one.hidden == hidden)
        and (named is None or named == (one.name is not None))
        and part in (one.name or "").casefold()
    ]


@router.post("/people", status_code=201)
def new_person(request: Request, wanted: r.NewPerson) -> r.PersonRecord:
    """Make a person of faces, or give the faces to the person who has the name."""
    service = service_of(request)
    same = None if wanted.name is None else composed(trimmed(wanted.name))
    known = [one for one in service.people() if one.name is not None and composed(one.name) == same]
    who, name = (known[0], None) if known else (None, wanted.name)
    person = service.edit(lambda engine: engine.this_person(who, *wanted.faces, name=name))
    what = f"faces {wanted.faces} are person {person.id}"
    _audit(request, what + _called(request, wanted.name))
    return r.PersonRecord.of(person)


@router.post("/people/hide")
def hide_people(request: Request, wanted: r.Hiding) -> r.PeoplePage:
    """Leave people out of lists and suggestions, or show them again, in one edit."""
    service = service_of(request)
    some = [service.person(number) for number in wanted.people]
    done = service.edit(lambda engine: engine.hide_people(some, wanted.hidden))
    _audit(request, f"{'hide' if wanted.hidden else 'show'} people {wanted.people}")
    return r.PeoplePage(
        people=[r.PersonRecord.of(one, with_faces=True) for one in done], total=len(done)
    )


@router.get("/people/{person}")
def person(request: Request, person: Id) -> r.PersonRecord:
    """A person with the ids of the faces."""
    found = service_of(request).person(person)
    return r.PersonRecord.of(found, with_faces=True)


@router.patch("/people/{person}")
def change_person(request: Request, person: Id, wanted: r.PersonChange) -> r.PersonRecord:
    """Name, hide or show a person, or choose the cover; ``"name": null`` removes the name.

    With ``was``, nothing is changed if the person has another name than that.
    """
    found = service_of(request).person(person)
    if "name" in wanted.model_fields_set:
        name = wanted.name or None
        what = f"{'name' if name else 'remove the name of'} person {person}"
        was = wanted.was if "was" in wanted.model_fields_set else ANY_NAME
        found = _edited(
            request, lambda e: e.name(found, name, was=was), what + _called(request, name)
        )
    if (hidden := wanted.hidden) is not None:
        what = f"{'hide' if hidden else 'show'} person {person}"
        found = _edited(request, lambda e: e.hide(found, hidden), what)
    if (cover := wanted.cover) is not None:
        what = f"choose cover {cover} of person {person}"
        found = _edited(request, lambda e: e.choose_cover(found, cover), what)
    return r.PersonRecord.of(found)


@router.post("/people/{person}/merge")
def merge_people(request: Request, person: Id, others: r.Merged) -> r.PersonRecord:
    """Make several people one, who keeps the number in the address."""
    service = service_of(request)
    first, *rest = [service.person(number) for number in (person, *others.people)]
    what = f"merge people {others.people} into {person}"
    keep = others.keep_name
    return r.PersonRecord.of(
        _edited(request, lambda e: e.merge(first, *rest, keep_name=keep), what)
    )


@router.post("/people/{person}/split", status_code=201)
def split_person(request: Request, person: Id, faces: r.Faces) -> r.PersonRecord:
    """Move faces of a person to a new person, who is answered."""
    service = service_of(request)
    found = service.person(person)
    new = service.edit(lambda engine: engine.split(found, *faces.faces))
    _audit(request, f"split faces {faces.faces} from person {person} as {new.id}")
    return r.PersonRecord.of(new)


@router.post("/people/{person}/faces")
def give_faces(request: Request, person: Id, faces: r.Faces) -> r.PersonRecord:
    """State that faces show a person."""
    found = service_of(request).person(person)
    what = f"faces {faces.faces} are person {person}"
    edited = _edited(request, lambda e: e.this_person(found, *faces.faces), what)
    return r.PersonRecord.of(edited)


@router.post("/people/{person}/not")
def take_faces(request: Request, person: Id, faces: r.Faces) -> r.PersonRecord:
    """State that faces do not show a person."""
    found = service_of(request).person(person)
    what = f"faces {faces.faces} are not person {person}"
    return r.PersonRecord.of(
        _edited(request, lambda e: e.not_this_person(found, *faces.faces), what)
    )


@router.delete("/people/{person}")
def forget_person(request: Request, person: Id) -> r.Removed:
    """Delete a person: faces, embeddings, name, and photos that show nobody else."""
    service = service_of(request)
    found = service.person(person)
    done = service.edit(lambda engine: engine.forget(found))
    _audit(request, f"forget person {person}")
    return r.Removed(photos=done.photos, faces=done.faces, left=list(done.left))


@router.get("/edits")
def edits(
    request: Request,
    limit: Annotated[int, Parameter(ge=1, le=1000)] = 100,
    language: Language = None,
) -> r.Edits:
    """The last edits of people, the newest first."""
    with service_of(request).reading() as now:
        return r.Edits.of(now.edits(limit), lambda what: _in_words(what, language))


@router.post("/edits/undo")
def undo(
    request: Request,
    expected: Annotated[r.ExpectedEdit | None, Body()] = None,
    language: Language = None,
) -> r.Undone:
    """Undo the last edit of people.

    If the body has an edit, and another one is the last, nothing is undone: the answer is 409, and
    its ``last`` has the last edit, or null.
    """
    edit = None if expected is None else Edit(expected.what, expected.made)
    try:
        what = service_of(request).undo(edit)
    except OtherEditError as error:
        problem = problem_of(error)
        if last := problem.further["last"]:
            last["words"] = _in_words(last["what"], language)
        raise problem from error
    _audit(request, f"undo: {what}" if _logs_names(request) else "undo")
    return r.Undone(what=what, words=_in_words(what, language))


def _in_words(what: str, language: str | None) -> str | None:
    """An edit in a language, English for one that there is none of; None without a language."""
    return None if language is None else described(what, texts.text_of(language))


@router.get("/suggestions")
def suggestions(
    request: Request, limit: Annotated[int, Parameter(ge=1, le=200)] = 50
) -> r.Suggestions:
    """Pairs of people, and of people and faces, that may be one person."""
    found = service_of(request).suggestions()[:limit]
    return r.Suggestions(suggestions=[r.SuggestionRecord.of(one) for one in found])


@router.post("/suggestions/answer")
def answer(request: Request, given: r.Answer) -> r.Answered:
    """Say whether two sides are one person; a "no" is kept and not asked again."""
    service = service_of(request)
    sides = given.first.to_side(), given.second.to_side()
    for side in sides:
        if not side.shown:
            _refuse("give the shown faces of each side")
        if side.person is not None:
            members = service.person(side.person).faces
            if not set(side.shown) <= set(members):
                face = next(one for one in side.shown if one not in members)
                raise SettingsError(f"face {face} does not belong to person {side.person}").coded(
                    "not-their-face", face=face, person=side.person
                )
    person = service.edit(lambda engine: engine.answer(Suggestion(*sides, 0.0), given.same))
    shown = " and ".join(
        f"faces {list(one.shown)}" + (f" of person {one.person}" if one.person else "")
        for one in sides
    )
    _audit(request, f"{'same' if given.same else 'different'}: {shown}")
    return r.Answered(person=None if person is None else person.id)


# Jobs and facts


@router.get("/folders")
def folders(
    request: Request, path: Annotated[str | None, Parameter(max_length=4096)] = None
) -> r.Folders:
    """Folders that may be indexed: those in a folder, or the roots."""
    if request.state.role != WRITE:
        raise ProblemError(403, "this token can only read; use the other one", "read-only")
    found = service_of(request).folders(path or None)
    return r.Folders(
        path=_path(request, found.folder) if found.folder else None,
        parent=_path(request, found.parent) if found.parent else None,
        folders=[
            r.FolderRecord(name=printable(name), path=str(full))
            for name, full in found.folders
            if printable(str(full)) == str(full)
        ],
        photos=found.photos,
        more=found.more,
    )


@router.get("/jobs")
def jobs(request: Request) -> r.JobList:
    """Work in the background, the newest first."""
    return r.JobList(jobs=[_job(request, job) for job in service_of(request).jobs.all()])


@router.post("/jobs", status_code=202)
def start_job(request: Request, wanted: r.JobRequest) -> r.JobRecord:
    """Index folders, group faces, rebuild the index or change the model, in the background."""
    service = service_of(request)
    if wanted.kind == "index":
        if not wanted.folders:
            _refuse("give folders to index")
        job = service.index(wanted.folders, wanted.again)
    elif wanted.kind == "people":
        job = service.group(wanted.again)
    elif wanted.kind == "rebuild":
        job = service.rebuild()
    else:
        job = service.upgrade(wanted.model)
    _audit(request, f"job {job.id}: {job.kind} {job.title}")
    return _job(request, job)


@router.get("/jobs/{job}")
def one_job(request: Request, job: Id) -> r.JobRecord:
    """Work in the background."""
    return _job(request, service_of(request).jobs.one(job))


@router.post("/jobs/{job}/cancel")
def cancel_job(request: Request, job: Id) -> r.JobRecord:
    """End work early; what it has finished is kept, and starting it again goes on."""
    found = service_of(request).jobs.cancel(job)
    _audit(request, f"cancel job {job}")
    return _job(request, found)


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "Events"}},
)
async def events(request: Request, once: bool = False) -> StreamingResponse:
    """Server-sent events, at first and after each change.

    ``jobs`` has the list of jobs, ``gallery`` the version of the gallery, which is another after
    each change of it, and ``forgotten`` the number of photos and faces that were forgotten.
    """

    async def stream() -> AsyncIterator[str]:
        seen, version, waited, turn = -1, "", 0.0, 0
        service = service_of(request)
        known = service.jobs
        while not request.app.state.ending:
            if known.version != seen:
                seen, waited = known.version, 0.0
                some = [_job(request, job).model_dump() for job in known.all()]
                yield f"event: jobs\ndata: {json.dumps(some)}\n\n"
            if turn % TURNS_PER_VERSION == 0:
                now = await asyncio.to_thread(service.version)
                if now != version:
                    version, waited = now, 0.0
                    yield f"event: gallery\ndata: {json.dumps(version)}\n\n"
                    forgotten = await asyncio.to_thread(service.forgotten)
                    yield f"event: forgotten\ndata: {forgotten}\n\n"
            if once:
                return
            if waited >= PING_SECONDS:
                waited = 0.0
                yield ": still here\n\n"
            await asyncio.sleep(TURN_SECONDS)
            waited += TURN_SECONDS
            turn += 1

    return StreamingResponse(stream(), media_type="text/event-stream")


@router.get("/info")
def info(request: Request) -> dict[str, Any]:
    """Facts about the gallery: counts, model, index and sizes."""
    facts = service_of(request).engine.info()
    if not may_see_paths(request):
        facts.pop("gallery")
    return facts | _rests_on(service_of(request))


# What routes share


def _refuse(words: str) -> NoReturn:
    """Refuse a request that is not valid."""
    raise SettingsError(words)


def _check_side(side: int) -> None:
    if side not in THUMBNAIL_SIDES:
        _refuse(f"side must be one of {', '.join(map(str, THUMBNAIL_SIDES))}")


def _check_batch(service: Service, some: Sequence[object]) -> None:
    most = service.settings.limits.batch
    if len(some) > most:
        raise ProblemError(
            413, f"{len(some)} are more than {most} in one request", "too-large", code="batch"
        )


def _matches_wanted(service: Service, k: int) -> int:
    most = service.settings.limits.matches
    if k > most:
        raise ProblemError(422, f"k is {k}; the most is {most}", "too-large", code="matches")
    return k


def _query_of(service: Service, query: r.Query) -> Face | NDArray[np.float32]:
    if (query.face is None) == (query.embedding is None):
        raise SettingsError("give either a face or an embedding for each query")
    if query.face is not None:
        return service.face(query.face).face
    embedding = np.asarray(query.embedding, np.float64)
    length = float(np.linalg.norm(embedding))
    if not 0 < length < np.inf:
        raise SettingsError("an embedding has length 0, or is not finite")
    return np.asarray(embedding / length, np.float32)


def _embedding(service: Service, query: Face | NDArray[np.float32]) -> NDArray[np.float32]:
    if isinstance(query, Face):
        assert query.embedding is not None
        return query.embedding
    return query


def _as_face(service: Service, query: Face | NDArray[np.float32]) -> Face:
    if isinstance(query, Face):
        return query
    dimension = service.engine.encoder.model.fingerprint.dimension
    if len(query) != dimension:
        raise SettingsError(
            f"an embedding has {len(query)} numbers; this gallery takes {dimension}"
        )
    return Face(NO_PLACE, NO_POINTS, 1.0, query)


def _verification(
    request: Request,
    first: Face | NDArray[np.float32],
    second: Face | NDArray[np.float32],
    far: float,
) -> r.VerificationRecord:
    found = service_of(request).engine.verify(first, second, far=far)
    return r.VerificationRecord(
        same=bool(found.same),
        similarity=float(found.similarity),
        threshold=float(found.threshold),
        probability=float(found.probability),
        far=float(found.far),
        outside=list(found.outside),
        reasons=r.ReasonRecord.all_of(found.outside, _language(request)),
    )


def _identified(
    service: Service, face: Face, at_least: float, *, with_box: bool
) -> r.IdentifiedRecord:
    (found,) = service.engine.identify(face, at_least=at_least)
    return r.IdentifiedRecord(
        person=None if found.person is None else found.person.id,
        name=None if found.person is None else found.person.name,
        probability=found.probability,
        candidates=[
            r.Candidate(person=one.id, name=one.name, probability=probability)
            for one, probability in found.candidates
        ],
        box=[float(v) for v in face.box] if with_box else None,
    )


def _match_records(
    request: Request, matches: Sequence[Match], sha256: bytes
) -> list[r.MatchRecord]:
    service = service_of(request)
    faces = [match.face.id for match in matches if match.face.id is not None]
    places = service.contents_of(faces)
    owners = service.owners()
    found = []
    for match in matches:
        number, content = places.get(match.face.id or 0, (0, b""))
        found.append(
            r.match_record(
                match,
                number,
                _path(request, match.photo),
                owners.get(match.face.id or 0),
                bool(sha256) and content == sha256,
                _language(request),
            )
        )
    return found


def _photo_record(request: Request, one: listing.ListedPhoto) -> r.PhotoRecord:
    return r.PhotoRecord(
        id=one.content,
        path=_path(request, one.path),
        width=one.width,
        height=one.height,
        status=one.status,
        reason=one.reason,
        faces=one.faces,
        copies=one.copies,
        taken=one.taken or None,
    )


def _face_of_photo(face: Face, owner: int | None, names: dict[int, str | None]) -> r.FaceOfPhoto:
    return r.FaceOfPhoto(
        id=face.id or 0,
        box=[float(v) for v in face.box],
        quality=face.quality,
        time=face.time,
        sure=face.is_sure,
        person=owner,
        name=None if owner is None else names.get(owner),
    )


def _mark_record(mark: Mark, names: dict[int, str | None]) -> r.MarkRecord:
    return r.MarkRecord(
        id=mark.id,
        box=list(mark.box),
        person=mark.person,
        name=None if mark.person is None else names.get(mark.person),
    )


def _rests_on(service: Service) -> dict[str, Any]:
    """The model of the gallery, and what its calibration was fitted on."""
    try:
        data: str | None = service.engine.calibration.data
    except CalibrationError:
        data = None
    return {"model": service.engine.encoder.model.fingerprint.digest, "calibration": data}


def _picture(data: bytes) -> Response:
    """A picture, which no browser keeps: it may show somebody who is forgotten."""
    return Response(data, media_type="image/webp")


def _job(request: Request, job: Job) -> r.JobRecord:
    facts, language = job.to_dict(), _language(request)
    if language is not None:
        hides = not may_see_paths(request)
        facts["words"] = job_in_words(job.problem, job.error, language, hides_paths=hides)
    if not may_see_paths(request):
        facts |= {"title": "", "result": {}, "error": "it failed" if facts["error"] else ""}
        facts["waits_for"] = "another process" if facts["waits_for"] else ""
    # The names of files may have bytes that are no text.
    text = json.dumps(facts, ensure_ascii=False).encode("utf-8", "replace")
    return r.JobRecord(**json.loads(text))


def _edited(request: Request, change: Callable[[Face2Vec], Person], what: str) -> Person:
    """The person after an edit, which is logged if it succeeds."""
    person = service_of(request).edit(change)
    _audit(request, what)
    return person


def _logs_names(request: Request) -> bool:
    return service_of(request).settings.log_names


def _called(request: Request, name: str | None) -> str:
    """The name of a person for the log, if names are to be in it."""
    return f" {name!r}" if name and _logs_names(request) else ""


def _audit(request: Request, what: str) -> None:
    """Log a change, with who asked for it; without names of people, unless they are wanted."""
    client = request.client.host if request.client else "?"
    request.app.state.audit.info("%s %s", client, what)
