"""The JSON of the API: what requests and answers hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from face2vec.report.matches import face_dict
from face2vec.report.text import printable
from face2vec.server.words import doubt_in_words
from face2vec.types import NAMED_AT_LEAST, Edit, Face, Match, Person, Reason, Side, Suggestion


class UnprintableNameError(ValueError):
    """A name that cannot be shown as it is."""

    code = "name-characters"


def _printable_name(name: str) -> str:
    if printable(name) != name:
        raise UnprintableNameError(
            "a name must not contain control characters or change the direction"
        )
    return name


Number = Annotated[int, Field(ge=1, lt=2**63)]
Value = Annotated[float, Field(ge=-1e6, le=1e6)]
"""One of the numbers of an embedding."""

Name = Annotated[str, Field(max_length=200), AfterValidator(_printable_name)]
"""The name of a person: what can be shown as it is."""


class Record(BaseModel):
    """A JSON object without other fields than those that are named."""

    model_config = ConfigDict(extra="forbid")


class FaceRecord(Record):
    """A face in a photo; box and landmarks are in pixels of the upright photo."""

    number: int = Field(description="place among the faces of the photo, from 1")
    box: list[float] = Field(description="left, top, right, bottom")
    landmarks: dict[str, list[float]]
    confidence: float = Field(description="of the detector, 0 to 1")
    quality: float | None
    parts: dict[str, float] | None
    time: float | None = Field(None, description="in a video, seconds")
    track: list[float] | None = Field(None, description="in a video, when it is seen, seconds")
    sure: bool = Field(description="whether it is hardly a false detection")
    embedding: list[float] | None = None

    @classmethod
    def of(cls, face: Face, number: int, *, with_embedding: bool = False) -> FaceRecord:
        """The record of a face."""
        embedding = None
        if with_embedding and face.embedding is not None:
            embedding = np.asarray(face.embedding, float).tolist()
        return cls(number=number, sure=face.is_sure, embedding=embedding, **face_dict(face))


class PhotoFaces(Record):
    """The faces of an uploaded photo."""

    photo: str
    width: int
    height: int
    damage: str = Field(description="what of the photo is missing, or empty")
    faces: list[FaceRecord]
    chosen: int | None = Field(description="number of the largest sure face")
    dropped: int = Field(description="faces beyond the limit, which are left out")
    sha256: str
    model: str = Field(description="digest of the model of the embeddings")
    preview: str | None = Field(None, description="the photo as a data URL, if it was asked for")


class PersonRecord(Record):
    """A person."""

    id: int
    name: str | None
    faces: int = Field(description="number of faces")
    hidden: bool
    cover: int | None = Field(description="id of the face to show")
    face_ids: list[int] | None = Field(None, description="ids of the faces, if asked for")

    @classmethod
    def of(cls, person: Person, *, with_faces: bool = False) -> PersonRecord:
        """The record of a person; without a chosen cover it is the first face."""
        cover = person.cover or (person.faces[0] if person.faces else None)
        return cls(
            id=person.id,
            name=person.name,
            faces=len(person.faces),
            hidden=person.hidden,
            cover=cover,
            face_ids=list(person.faces) if with_faces else None,
        )


class PeoplePage(Record):
    """Some of the people."""

    people: list[PersonRecord]
    total: int


class ReasonRecord(Record):
    """Why a probability is less certain than stated."""

    code: str
    values: dict[str, int]
    words: str | None = Field(None, description="the reason in the language that was asked for")

    @classmethod
    def all_of(cls, reasons: Sequence[str], language: str | None) -> list[ReasonRecord]:
        """The records of the reasons of a match or of a verification.

        Args:
            reasons: the reasons of the engine.
            language: that was asked for, or None.
        """
        return [
            cls(
                code=one.code,
                values=one.values,
                words=None if language is None else doubt_in_words(one, language),
            )
            for one in reasons
            if isinstance(one, Reason)
        ]


class MatchRecord(Record):
    """A face of the gallery that is similar to a query."""

    rank: int
    face: int = Field(description="id of the face")
    photo: int = Field(description="number of the photo")
    path: str | None = Field(description="path of the photo; null if this token may not see it")
    similarity: float
    probability: float | None
    false_matches: float | None
    outside: list[str] = Field(description="why the probability is less certain than stated")
    reasons: list[ReasonRecord] = Field(description="the same, with a code each")
    box: list[float]
    landmarks: dict[str, list[float]]
    confidence: float
    quality: float | None
    time: float | None = Field(description="in a video, seconds")
    person: int | None
    name: str | None
    query_photo: bool = Field(description="whether the photo is the query itself")


class Matches(Record):
    """The matches of one query face."""

    matches: list[MatchRecord]


class SearchAnswer(Record):
    """The matches of each query, and what the rates rest on."""

    results: list[Matches]
    model: str
    calibration: str | None = Field(description="what the calibration was fitted on")


class PhotoMatches(Matches):
    """The matches of one face of an uploaded photo."""

    query: FaceRecord


class PhotoSearch(Record):
    """The matches of the faces of an uploaded photo."""

    photo: str
    results: list[PhotoMatches]
    model: str
    calibration: str | None


class Query(Record):
    """What is searched with: a face of the gallery, or an embedding."""

    face: Number | None = None
    embedding: list[Value] | None = Field(None, max_length=4096)


class SearchRequest(Record):
    """A search."""

    queries: list[Query] = Field(min_length=1)
    one_person: bool = Field(False, description="all queries show one person: search their mean")
    k: int = Field(10, ge=1)
    far: float | None = Field(None, gt=0, le=1, description="highest false accept rate")
    min_similarity: float | None = Field(None, ge=-1, le=1)
    person: Number | None = None
    folder: str | None = Field(None, max_length=4096)
    since: str | None = Field(
        None, alias="from", max_length=40, description="a year, month or day such as 2024-05"
    )
    until: str | None = Field(None, alias="to", max_length=40)
    without: list[Number] = Field(default_factory=list, max_length=1000)
    query_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of the bytes of the query photo"
    )


class Pair(Record):
    """Two faces to verify."""

    first: Query
    second: Query


class VerifyRequest(Record):
    """Pairs of faces."""

    pairs: list[Pair] = Field(min_length=1)
    far: float = Field(1e-3, gt=0, le=1)


class VerificationRecord(Record):
    """Whether two faces show one person."""

    same: bool
    similarity: float
    threshold: float
    probability: float
    far: float = Field(description="false accept rate at this similarity")
    outside: list[str] = Field(description="why the probability is less certain than stated")
    reasons: list[ReasonRecord] = Field(description="the same, with a code each")


class Verifications(Record):
    """One answer per pair."""

    results: list[VerificationRecord]


class IdentifyRequest(Record):
    """Faces of the gallery, or embeddings, to name."""

    queries: list[Query] = Field(min_length=1)
    at_least: float = Field(NAMED_AT_LEAST, ge=0, le=1)


class Candidate(Record):
    """A person who a face may show."""

    person: int
    name: str | None
    probability: float


class IdentifiedRecord(Record):
    """Who a face shows."""

    person: int | None
    name: str | None
    probability: float
    candidates: list[Candidate]
    box: list[float] | None = None


class Identifications(Record):
    """One answer per face."""

    results: list[IdentifiedRecord]


class PhotoRecord(Record):
    """A photo of the gallery."""

    id: int
    path: str | None
    width: int
    height: int
    status: str
    reason: str
    faces: int
    copies: int = 0
    taken: str | None = Field(None, description="by the clock of the camera, or null")


class PhotoPage(Record):
    """Some of the photos."""

    photos: list[PhotoRecord]
    total: int


class Month(Record):
    """How many photos were taken in a month."""

    month: str = Field(description="such as 2024-05; empty for photos without a date")
    photos: int


class Months(Record):
    """All months with photos, the newest first."""

    months: list[Month]


class FaceOfPhoto(Record):
    """A face of a photo of the gallery."""

    id: int
    box: list[float]
    quality: float | None
    time: float | None = Field(description="in a video, seconds")
    sure: bool
    person: int | None
    name: str | None


class MarkRecord(Record):
    """A face that was marked by hand and has no landmarks: it is not searched."""

    id: int
    box: list[float]
    person: int | None
    name: str | None


class PhotoWithFaces(PhotoRecord):
    """A photo with its faces."""

    face_list: list[FaceOfPhoto]
    marks: list[MarkRecord]
    paths: list[str]


class NewFace(Record):
    """A box around a face that was missed, in pixels of the upright photo."""

    box: tuple[Value, Value, Value, Value] = Field(description="left, top, right, bottom")


class MarkedRecord(Record):
    """What became of a face that was marked by hand; one of the two is null."""

    face: int | None = Field(description="id of the face, if landmarks were found")
    mark: int | None = Field(description="number of the mark, if none were found")


class MarkChange(Record):
    """Whom a mark shows; null for nobody."""

    name: Name | None


class GalleryFace(FaceOfPhoto):
    """A face of the gallery."""

    photo: int
    path: str | None
    parts: dict[str, float] | None


class Faces(Record):
    """Ids of faces."""

    faces: list[Number] = Field(min_length=1, max_length=10_000)


class NewPerson(Faces):
    """Faces that show one person."""

    name: Name | None = None


class PersonChange(Record):
    """What to change of a person; what is not given stays."""

    name: Name | None = None
    was: str | None = Field(
        None, description="the name that the person is known to have, or null for none"
    )
    hidden: bool | None = None
    cover: Number | None = None


class People(Record):
    """Numbers of people."""

    people: list[Number] = Field(min_length=1, max_length=1000)


class Merged(People):
    """People who become another one."""

    keep_name: bool = Field(
        False, description="that person's name stays, if there is one, and other names are dropped"
    )


class Hiding(People):
    """People to leave out of lists and suggestions, or to show again."""

    hidden: bool = True


class SideRecord(Record):
    """One side of a suggestion."""

    person: Number | None
    name: str | None = None
    count: int = 1
    shown: list[Number] = Field(max_length=2, description="ids of faces that show it best")

    @classmethod
    def of(cls, side: Side) -> SideRecord:
        """The record of a side."""
        return cls(person=side.person, name=side.name, count=side.count, shown=list(side.shown))

    def to_side(self) -> Side:
        """The side of a record."""
        return Side(self.person, self.name, self.count, tuple(self.shown))


class SuggestionRecord(Record):
    """Two sides that may be one person."""

    first: SideRecord
    second: SideRecord
    probability: float

    @classmethod
    def of(cls, one: Suggestion) -> SuggestionRecord:
        """The record of a suggestion."""
        return cls(
            first=SideRecord.of(one.first),
            second=SideRecord.of(one.second),
            probability=one.probability,
        )


class Suggestions(Record):
    """Pairs that may be one person, those that settle most first."""

    suggestions: list[SuggestionRecord]


class Answer(Record):
    """Whether the two sides of a suggestion are one person."""

    first: SideRecord
    second: SideRecord
    same: bool


class Answered(Record):
    """What an answer did."""

    person: int | None = Field(description="the person that both are now; null after a no")


class EditRecord(Record):
    """An edit of people that can be undone."""

    what: str
    made: int | None = Field(description="seconds since 1970")
    words: str | None = Field(None, description="the edit in the language that was asked for")


class Edits(Record):
    """The last edits, the newest first."""

    edits: list[EditRecord]

    @classmethod
    def of(cls, edits: Sequence[Edit], words: Callable[[str], str | None]) -> Edits:
        """The record of edits.

        Args:
            edits: the edits.
            words: the description of an edit in the language that was asked for, or None.
        """
        some = [EditRecord(what=one.what, made=one.made, words=words(one.what)) for one in edits]
        return cls(edits=some)


class ExpectedEdit(Record):
    """The edit that a client takes for the last one, as ``/edits`` has it."""

    what: str
    made: int | None = Field(None, description="seconds since 1970")


class Undone(Record):
    """What was undone."""

    what: str
    words: str | None = Field(None, description="the edit in the language that was asked for")


class Removed(Record):
    """What was removed."""

    photos: int
    faces: int
    left: list[str] = Field(default_factory=list, description="traces that are left; none normally")


class JobRequest(Record):
    """Work for the background."""

    kind: Literal["index", "people", "rebuild", "upgrade"]
    folders: list[str] = Field(default_factory=list, description="for index")
    again: bool = Field(
        False, description="for people: group all faces again; for index: read all photos again"
    )
    model: str = Field("", description="for upgrade: a key of the catalogue")


class JobRecord(Record):
    """Work in the background."""

    id: int
    kind: str
    title: str
    state: str
    done: int
    total: int | None
    seconds: float
    rate: float
    seconds_left: float | None
    made: float
    ended: float | None
    result: dict[str, Any]
    error: str
    waits_for: str = Field(description="which other process is writing, while it waits for that")
    words: str | None = Field(
        None, description="the error, or what it waits for, in the language that was asked for"
    )


class JobList(Record):
    """All jobs that are remembered, the newest first."""

    jobs: list[JobRecord]


class FolderRecord(Record):
    """A folder that may be indexed."""

    name: str
    path: str


class Folders(Record):
    """The folders in a folder, or the folders that may be indexed."""

    path: str | None = Field(description="the folder; null for the list of all roots")
    parent: str | None = Field(description="the folder above, if that may be indexed too")
    folders: list[FolderRecord]
    photos: int = Field(description="files in the folder itself that have the suffix of a photo")
    more: bool = Field(description="whether there are more folders than are listed")


class ProblemRecord(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="a word for the detail")
    values: dict[str, Any] = Field(description="what the detail names")
    words: str | None = Field(None, description="the detail in the language that was asked for")


def match_record(
    match: Match,
    photo: int,
    path: str | None,
    person: Person | None,
    query_photo: bool,
    language: str | None,
) -> MatchRecord:
    """The record of a match."""
    facts = face_dict(match.face)
    return MatchRecord(
        rank=match.rank,
        face=match.face.id or 0,
        photo=photo,
        path=path,
        similarity=match.similarity,
        probability=match.probability,
        false_matches=match.false_matches,
        outside=list(match.outside),
        reasons=ReasonRecord.all_of(match.outside, language),
        **{name: facts[name] for name in ("box", "landmarks", "confidence", "quality", "time")},
        person=None if person is None else person.id,
        name=None if person is None else person.name,
        query_photo=query_photo,
    )
