"""`Client`: the methods of `Face2Vec` over a service on another machine or in another process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import parse_qs, urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from face2vec import arguments
from face2vec.calibration import USUAL_FAR, Verification
from face2vec.errors import (
    CalibrationError,
    Face2VecError,
    GalleryError,
    GalleryLockedError,
    GalleryMismatchError,
    GalleryNotFoundError,
    MissingExtraError,
    ModelError,
    NoFaceError,
    OtherEditError,
    PhotoError,
    ServiceError,
    SettingsError,
    kind_of,
)
from face2vec.photos.formats import NOT_A_PHOTO, photo_format, read_photo_bytes
from face2vec.report.matches import LANDMARK_NAMES, Matches, QueryResult
from face2vec.types import (
    ANY_NAME,
    NAMED_AT_LEAST,
    AnyName,
    Edit,
    Face,
    Forgotten,
    Identified,
    Mark,
    Marked,
    Match,
    Person,
    QualityParts,
    Reason,
    Side,
    Suggestion,
    largest_sure,
)

if TYPE_CHECKING:
    pass

TOKEN_VARIABLE = "FACE2VEC_TOKEN"
SECONDS = 120.0
"""Time that an answer may take."""

_ERRORS: Mapping[str, type[Face2VecError]] = {
    "not-found": GalleryError,
    "invalid-request": SettingsError,
    **{
        kind_of(error): error
        for error in (
            *(GalleryNotFoundError, GalleryLockedError, GalleryMismatchError, GalleryError),
            *(NoFaceError, SettingsError, CalibrationError, ModelError),
        )
    },
}

Photo = str | bytes | os.PathLike[str]
Who = int | str | Person


class Client:
    """A gallery that ``face2vec serve`` serves, with methods and types of `Face2Vec`.

    It searches, verifies, identifies and edits people; building is the work of jobs.

    Photos are sent to the service; paths in answers are those of the machine that it runs on.

    Args:
        address: as ``face2vec serve`` prints it, with or without ``?token=…``.
        token: the token; the default is that of the address, or of ``FACE2VEC_TOKEN``.

    Raises:
        SettingsError: the address is not one, or there is no token.
        MissingExtraError: httpx is not installed.
    """

    def __init__(self, address: str, token: str | None = None) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtraError("a client of a service", "httpx", "server") from error
        parts = urlsplit(arguments.text("address", address))
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise SettingsError(f"{address!r} is no address; give one as http://127.0.0.1:8000")
        found = parse_qs(parts.query).get("token", [""])[0]
        token = token or found or os.environ.get(TOKEN_VARIABLE)
        if not token:
            raise SettingsError(
                f"there is no token; give token=, the address that 'face2vec serve' printed, or "
                f"{TOKEN_VARIABLE}"
            )
        self.address = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        self._http = httpx.Client(
            base_url=f"{self.address}/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=SECONDS,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    # Queries

    def encode(self, photo: Photo) -> list[Face]:
        """Faces of one photo with their embeddings, most confident first; [] if there are none.

        Args:
            photo: a path, or the bytes of a file.

        Raises:
            PhotoError: the photo cannot be read.
        """
        return self._encoded(photo)[0]

    def search(
        self,
        query: Photo | Face | NDArray[np.float32] | Sequence[Photo],
        k: int = 10,
        *,
        min_similarity: float | None = None,
        far: float | None = None,
    ) -> list[QueryResult]:
        """The k most similar gallery faces for each face of the query; see `Face2Vec.search`.

        Args:
            query: a photo: one result per face; several photos of one person: one result for the
                mean of the largest face of each; a `Face`; or an embedding float32 (d,).
            k: maximum number of matches per result.
            min_similarity: leave out matches below this similarity, −1…1.
            far: leave out matches below the threshold for this false accept rate, 0…1.

        Raises:
            PhotoError: a photo cannot be read.
            NoFaceError: none of several photos has a face.
            SettingsError: a value is out of range, or the embedding has another dimension.
        """
        name, faces, sha256 = "<query>", cast("list[Face | None]", []), None
        if isinstance(query, Face):
            queries, faces = [_query(query)], [query]
        elif isinstance(query, np.ndarray):
            queries, faces = [_query(query)], [None]
        elif isinstance(query, list | tuple):
            largest = [largest_sure(some) for photo in query if (some := self.encode(photo))]
            if not largest:
                raise NoFaceError("none of the photos has a face; give photos with one")
            queries, faces = [_query(face) for face in largest], [None]
            name = ", ".join(_name(photo) for photo in query)
        else:
            encoded, name, sha256 = self._encoded(cast("Photo", query))
            queries, faces = [_query(face) for face in encoded], list(encoded)
        if not queries:
            return []
        answer = self._call(
            "POST",
            "/search",
            json={
                "queries": queries,
                "one_person": isinstance(query, list | tuple),
                "k": k,
                "far": far,
                "min_similarity": min_similarity,
                "query_sha256": sha256,
            },
        )
        source = query if isinstance(query, bytes) else None
        return [
            QueryResult(
                name, face, Matches(map(_match, one["matches"])), source, number, len(faces)
            )
            for number, (face, one) in enumerate(zip(faces, answer["results"], strict=True), 1)
        ]

    def verify(
        self,
        first: Photo | Face | NDArray[np.float32],
        second: Photo | Face | NDArray[np.float32],
        *,
        far: float = USUAL_FAR,
    ) -> Verification:
        """Whether two faces show the same person; see `Face2Vec.verify`.

        Args:
            first: a photo, whose largest sure face is used; a `Face`; or an embedding float32
                (d,).
            second: the other face, likewise; of an embedding, float32 (d,).
            far: false accept rate of the decision, 0…1.

        Raises:
            PhotoError: a photo cannot be read.
            NoFaceError: a photo has no face.
        """
        pair = {"first": self._side(first), "second": self._side(second)}
        (found,) = self._call("POST", "/verify", json={"pairs": [pair], "far": far})["results"]
        similarity = found["similarity"]
        return Verification(
            found["same"],
            found["probability"],
            similarity,
            float(np.sqrt(max(2 - 2 * similarity, 0.0))),
            found["threshold"],
            found["far"],
            _outside(found),
        )

    def identify(
        self, query: Photo | Face, *, at_least: float = NAMED_AT_LEAST
    ) -> list[Identified]:
        """Who each face of a photo is, among the people with names; see `Face2Vec.identify`.

        Args:
            query: a photo, or a face.
            at_least: lowest probability to name somebody, 0…1.

        Raises:
            PhotoError: the photo cannot be read.
        """
        faces = [query] if isinstance(query, Face) else self.encode(query)
        if not faces:
            return []
        body = {"queries": [_query(face) for face in faces], "at_least": at_least}
        found = self._call("POST", "/identify", json=body)["results"]
        return [
            Identified(
                face,
                None if one["person"] is None else Person(one["person"], one["name"]),
                one["probability"],
                tuple(
                    (Person(who["person"], who["name"]), who["probability"])
                    for who in one["candidates"]
                ),
            )
            for face, one in zip(faces, found, strict=True)
        ]

    # People

    def people(self) -> list[Person]:
        """All people that are not hidden: named ones first, then by number of faces."""
        found: list[Person] = []
        while True:
            wanted = {"skip": len(found), "limit": 500, "with_faces": True}
            page = self._call("GET", "/people", params=wanted)
            found += map(_person, page["people"])
            if len(found) >= page["total"] or not page["people"]:
                return found

    def person(self, who: Who) -> Person:
        """A person by number or name, with the ids of the faces.

        Raises:
            GalleryError: there is no such person.
        """
        return _person(self._call("GET", f"/people/{self._number(who)}"))

    def name(self, who: Who, name: str | None, *, was: str | AnyName | None = ANY_NAME) -> Person:
        """Give a person a name, or remove it with None; see `EnginePeople.name`."""
        known = {} if was is ANY_NAME else {"was": was}
        number = self._number(who)
        self._call("PATCH", f"/people/{number}", json={"name": name, **known})
        return self.person(number)

    def hide(self, who: Who, hidden: bool = True) -> Person:
        """Leave a person out of lists and suggestions, or show them again."""
        self._call("PATCH", f"/people/{(number := self._number(who))}", json={"hidden": hidden})
        return self.person(number)

    def hide_people(self, people: Iterable[Who], hidden: bool = True) -> list[Person]:
        """Leave several people out of lists and suggestions, or show them again, in one edit."""
        numbers = [self._number(one) for one in arguments.several_people(people)]
        body = {"people": numbers, "hidden": hidden}
        done = self._call("POST", "/people/hide", json=body)["people"]
        return [_person(one) for one in done]

    def choose_cover(self, who: Who, face: int) -> Person:
        """Choose the face that is shown for a person."""
        self._call("PATCH", f"/people/{(number := self._number(who))}", json={"cover": face})
        return self.person(number)

    def merge(self, who: Who, *others: Who, keep_name: bool = False) -> Person:
        """Make several people one person, who keeps the number of the first.

        Args:
            who: the person who keeps the number.
            others: the people who become that person.
            keep_name: the name of ``who`` stays, if there is one, and other names are dropped.
        """
        body = {"people": [self._number(other) for other in others], "keep_name": keep_name}
        self._call("POST", f"/people/{(number := self._number(who))}/merge", json=body)
        return self.person(number)

    def split(self, who: Who, *faces: int) -> Person:
        """Move some faces of a person to a new person, who is returned."""
        path = f"/people/{self._number(who)}/split"
        return self.person(self._call("POST", path, json={"faces": faces})["id"])

    def this_person(self, who: Who | None, *faces: int, name: str | None = None) -> Person:
        """State that faces show a person, or, with None, a new person.

        Args:
            who: the person, or None.
            faces: ids of the faces.
            name: of a new person; if somebody has it, the faces join that person.

        Raises:
            SettingsError: there is a name for a person who is there.
        """
        arguments.name_of_new(who, name)
        body: dict[str, Any] = {"faces": faces}
        if name is not None:
            body["name"] = name
        path = "/people" if who is None else f"/people/{self._number(who)}/faces"
        return self.person(self._call("POST", path, json=body)["id"])

    def not_this_person(self, who: Who, *faces: int) -> Person:
        """State that faces do not show a person."""
        path = f"/people/{(number := self._number(who))}/not"
        self._call("POST", path, json={"faces": faces})
        return self.person(number)

    def ignore(self, *faces: int) -> None:
        """State that faces are no faces, such as a doll's; they leave the gallery."""
        self._call("POST", "/faces/ignore", json={"faces": faces})

    def mark_face(self, photo: int, box: Sequence[float]) -> Marked:
        """Add a face that the detector missed; see `Face2Vec.mark_face`.

        Args:
            photo: number of the photo, as ``get("/photos")`` lists it.
            box: left, top, right and bottom in pixels of the upright photo.
        """
        body = {"box": arguments.box("box", box)}
        return Marked(**self._call("POST", f"/photos/{int(photo)}/faces", json=body))

    def name_mark(self, mark: int, name: str | None) -> Person | None:
        """State whom a mark shows, by name, or, with None, nobody; returns the person."""
        found = self._call("PATCH", f"/marks/{int(mark)}", json={"name": name})
        return None if found["person"] is None else self.person(found["person"])

    def unmark(self, mark: int) -> None:
        """Delete a mark."""
        self._call("DELETE", f"/marks/{int(mark)}")

    def marks(self, photo: int) -> list[Mark]:
        """The faces of a photo that were marked by hand and have no landmarks.

        Args:
            photo: number of the photo.
        """
        found = self._call("GET", f"/photos/{int(photo)}")["marks"]
        return [Mark(one["id"], photo, tuple(one["box"]), one["person"]) for one in found]

    def forget(self, who: Who) -> Forgotten:
        """Delete a person: faces, embeddings, name, and photos that show nobody else."""
        number = self._number(who)
        done = self._call("DELETE", f"/people/{number}")
        return Forgotten(number, done["faces"], done["photos"], tuple(done["left"]))

    def suggest(self, most: int = 50) -> list[Suggestion]:
        """Pairs of people, and of people and single faces, that may be one person."""
        found = self._call("GET", "/suggestions", params={"limit": most})["suggestions"]
        return [
            Suggestion(_side(one["first"]), _side(one["second"]), one["probability"])
            for one in found
        ]

    def answer(self, suggestion: Suggestion, same: bool) -> Person | None:
        """State whether the two sides of a suggestion are one person."""
        sides = {
            name: {"person": side.person, "shown": side.shown}
            for name, side in (("first", suggestion.first), ("second", suggestion.second))
        }
        found = self._call("POST", "/suggestions/answer", json=sides | {"same": same})
        return None if found["person"] is None else self.person(found["person"])

    def edits(self, most: int = 100) -> list[Edit]:
        """The last edits that `undo` can take back, the newest first."""
        found = self._call("GET", "/edits", params={"limit": most})["edits"]
        return [Edit(one["what"], one["made"]) for one in found]

    def undo(self, expected: Edit | None = None) -> str:
        """Undo the last edit of people; returns what it was.

        Args:
            expected: the edit that must be the last one, as `edits` has it; None for any.

        Raises:
            OtherEditError: another edit is the last one; nothing was undone.
            GalleryError: there is no edit to undo.
        """
        body = None if expected is None else expected._asdict()
        return str(self._call("POST", "/edits/undo", json=body)["what"])

    def info(self) -> dict[str, Any]:
        """Facts about the gallery, see `Face2Vec.info`."""
        return self._call("GET", "/info")

    # The calls

    def get(self, path: str, **values: Any) -> dict[str, Any]:
        """The JSON of a GET request, for what has no method; ``/openapi.json`` describes it.

        Args:
            path: below ``/v1``, such as ``"/photos"``.
            values: parameters of the request, such as ``person=3``.

        Raises:
            Face2VecError: the error that the service has answered, or `ServiceError`.
        """
        return self._call("GET", path, params=values)

    def _encoded(self, photo: Photo) -> tuple[list[Face], str, str]:
        """The faces of a photo, its name and the SHA-256 of its bytes in hexadecimal."""
        name = _name(photo)
        data = photo if isinstance(photo, bytes) else _bytes_of(photo, name)
        found = self._call("POST", "/encode", files={"photo": (Path(name).name, data)}, photo=name)
        model = found["model"]
        return [_face(one, model) for one in found["faces"]], name, hashlib.sha256(data).hexdigest()

    def _side(self, side: Photo | Face | NDArray[np.float32]) -> dict[str, Any]:
        if isinstance(side, Face | np.ndarray):
            return _query(side)
        faces = self.encode(side)
        if not faces:
            raise NoFaceError(f"no face was found in {_name(side)}")
        return _query(largest_sure(faces))

    def _number(self, who: Who) -> int:
        if isinstance(who, Person):
            return who.id
        if isinstance(who, str) and not who.isdecimal():
            page = self._call("GET", "/people", params={"name": who, "limit": 500})
            for one in page["people"]:
                if one["name"] == who:
                    return int(one["id"])
            raise GalleryError(f"there is no person {who!r} at {self.address}")
        return int(who)

    def _call(self, method: str, path: str, photo: str = "", **values: Any) -> dict[str, Any]:
        """The JSON of an answer.

        Raises:
            Face2VecError: the error that the service has answered, or `ServiceError`.
        """
        import httpx

        try:
            answer = self._http.request(method, path, **values)
        except httpx.HTTPError as error:
            raise ServiceError(
                f"{self.address} does not answer ({error or type(error).__name__}); check the "
                "address, and that 'face2vec serve' is running"
            ) from error
        try:
            found = answer.json()
        except ValueError as error:
            raise ServiceError(f"{self.address} is not a service of face2vec") from error
        if answer.is_success:
            return cast("dict[str, Any]", found)
        detail = str(found.get("detail", answer.reason_phrase))
        kind = str(found.get("type", "")).rpartition(":")[2]
        if kind == "photo":
            raise PhotoError(photo, detail.partition(": ")[2] or detail)
        if kind == kind_of(OtherEditError):
            last = found.get("last") or {}
            raise OtherEditError(last.get("what"), last.get("made"))
        raise _ERRORS.get(kind, ServiceError)(detail)


def _name(photo: Photo) -> str:
    return "<bytes>" if isinstance(photo, bytes) else os.fspath(photo)


def _bytes_of(photo: str | os.PathLike[str], name: str) -> bytes:
    """The bytes of a photo's file; a file that is no photo is not sent.

    Raises:
        PhotoError: the file cannot be read, or is no photo.
    """
    data = read_photo_bytes(photo, name=name)
    if photo_format(data) is None:
        raise PhotoError(name, NOT_A_PHOTO)
    return data


def _query(side: Face | NDArray[np.float32]) -> dict[str, Any]:
    """The JSON of a query: the id of a gallery's face, or an embedding."""
    if isinstance(side, Face):
        if side.id is not None:
            return {"face": side.id}
        if side.embedding is None:
            raise SettingsError(f"{side!r} has no embedding; encode its photo first")
        side = side.embedding
    return {"embedding": np.asarray(side, float).tolist()}


def _face(one: Mapping[str, Any], model: str) -> Face:
    left, top, right, bottom = one["box"]
    points: Any = tuple(tuple(one["landmarks"][name]) for name in LANDMARK_NAMES)
    embedding = one.get("embedding")
    parts = one.get("parts")
    return Face(
        (left, top, right, bottom),
        points,
        one["confidence"],
        None if embedding is None else np.asarray(embedding, np.float32),
        one.get("face"),
        one["quality"],
        model,
        None if parts is None else QualityParts(**parts),
        time=one.get("time"),
    )


def _outside(one: Mapping[str, Any]) -> tuple[str, ...]:
    """Why a probability is less certain than stated, with the codes if the service sends them."""
    reasons = one.get("reasons")
    if reasons is None:
        return tuple(one["outside"])
    return tuple(
        Reason(words, reason["code"], reason["values"])
        for words, reason in zip(one["outside"], reasons, strict=True)
    )


def _match(one: Mapping[str, Any]) -> Match:
    return Match(
        one["rank"],
        one["similarity"],
        _face(one, ""),
        one["path"] or f"photo {one['photo']}",
        (),
        one["probability"],
        one["false_matches"],
        outside=_outside(one),
    )


def _person(one: Mapping[str, Any]) -> Person:
    return Person(one["id"], one["name"], tuple(one["face_ids"]), one["hidden"], one["cover"])


def _side(one: Mapping[str, Any]) -> Side:
    return Side(one["person"], one["name"], one["count"], tuple(one["shown"]))
