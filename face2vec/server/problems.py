"""Errors as problem details (RFC 9457), with the words of the command line."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

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
    SettingsError,
    kind_of,
)

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><link rel="stylesheet" href="/static/style.css"></head>
<body><main><h1>{title}</h1><p>{detail}</p></main></body>
</html>
"""

MEDIA_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[Face2VecError], int], ...] = (
    (GalleryNotFoundError, 404),
    (GalleryLockedError, 409),
    (GalleryMismatchError, 409),
    (OtherEditError, 409),
    (GalleryError, 422),
    (NoFaceError, 422),
    (PhotoError, 422),
    (SettingsError, 422),
    (CalibrationError, 422),
    (MissingExtraError, 501),
    (ModelError, 503),
)


class ProblemError(Exception):
    """An answer with an error status.

    Args:
        status: the HTTP status.
        detail: what was wrong, and what to do.
        kind: a word for programs, such as ``"too-large"``.
        headers: of the answer.
        further: members of the JSON besides those that every problem has.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        kind: str = "",
        headers: Mapping[str, str] | None = None,
        further: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.kind = kind or HTTPStatus(status).phrase.lower().replace(" ", "-")
        self.headers = dict(headers or {})
        self.further = dict(further or {})

    def response(self, *, page: bool = False) -> Response:
        """The answer, as JSON or as a page for people."""
        if page:
            title = f"{self.status} {HTTPStatus(self.status).phrase}"
            return HTMLResponse(
                _PAGE.format(title=html.escape(title), detail=html.escape(self.detail)),
                self.status,
                self.headers,
            )
        body = {
            "type": f"urn:face2vec:problem:{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **self.further,
        }
        return JSONResponse(body, self.status, self.headers, MEDIA_TYPE)


class NotThereError(GalleryError):
    """A photo, face, person or job that the gallery does not have."""


def problem_of(error: Face2VecError) -> ProblemError:
    """The problem for an error of the engine."""
    if isinstance(error, NotThereError):
        return ProblemError(404, str(error), "not-found")
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return ProblemError(status, str(error), kind_of(type(error)), further=_further(error))
    return ProblemError(500, str(error), kind_of(type(error)))


def _further(error: Face2VecError) -> dict[str, Any]:
    """What the JSON of an error has besides what every problem has."""
    if not isinstance(error, OtherEditError):
        return {}
    last = None if error.what is None else {"what": error.what, "made": error.made}
    return {"last": last}


def install(app: FastAPI, page: Callable[[Request, ProblemError], Response]) -> None:
    """Answer every error of an application with problem details.

    Args:
        app: the application.
        page: makes a page of a problem, for people who have asked for one.
    """

    @app.exception_handler(ProblemError)
    def of_problem(_: Request, error: ProblemError) -> Response:
        return error.response()

    @app.exception_handler(Face2VecError)
    def of_engine(_: Request, error: Face2VecError) -> Response:
        return problem_of(error).response()

    @app.exception_handler(RequestValidationError)
    def of_request(request: Request, error: RequestValidationError) -> Response:
        problem = ProblemError(422, _validation(error.errors()), "invalid-request")
        return page(request, problem) if _is_for_a_person(request) else problem.response()

    @app.exception_handler(HTTPException)
    def of_http(request: Request, error: HTTPException) -> Response:
        problem = ProblemError(error.status_code, str(error.detail), headers=error.headers)
        return page(request, problem) if _is_for_a_person(request) else problem.response()

    @app.exception_handler(Exception)
    def of_anything(_: Request, error: Exception) -> Response:
        return ProblemError(500, f"an error in face2vec: {type(error).__name__}").response()


def _is_for_a_person(request: Request) -> bool:
    """Whether a browser has asked for a page, and not a program for JSON."""
    is_api = request.url.path.startswith("/v1/")
    return not is_api and "text/html" in request.headers.get("accept", "")


def _validation(errors: Any) -> str:
    """What is wrong with a request, one clause for each value."""
    found = []
    for one in errors:
        place = ".".join(str(part) for part in one.get("loc", ()) if part != "body") or "the body"
        found.append(f"{place}: {str(one.get('msg', 'invalid')).lower()}")
    return "; ".join(found[:10])
