"""Errors as problem details (RFC 9457), with the words of the command line."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

from face2vec.errors import (
    AddressNotAllowedError,
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
    is_full_disk,
    kind_of,
    not_written,
)
from face2vec.server.texts import DEFAULT, language_asked, text_of
from face2vec.server.words import BUG, code_of, problem_in_words

_PAGE = """<!DOCTYPE html>
<html lang="{language}">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<link rel="stylesheet" href="/static/style.css">{script}</head>
<body><main><h1>{title}</h1><p>{detail}</p></main></body>
</html>
"""

_SIGNED_OUT = '<script src="/static/signed-out.js"></script>'

MEDIA_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[Face2VecError], int], ...] = (
    (GalleryNotFoundError, 404),
    (GalleryLockedError, 409),
    (GalleryMismatchError, 409),
    (OtherEditError, 409),
    (GalleryError, 422),
    (NoFaceError, 422),
    (PhotoError, 422),
    (AddressNotAllowedError, 403),
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
        code: a word for ``detail``, see `Face2VecError`; the default is ``kind``.
        values: what ``detail`` names, by name.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        kind: str = "",
        headers: Mapping[str, str] | None = None,
        further: Mapping[str, Any] | None = None,
        code: str = "",
        values: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.kind = kind or HTTPStatus(status).phrase.lower().replace(" ", "-")
        self.headers = dict(headers or {})
        self.further = dict(further or {})
        self.code, self.values = code or self.kind, dict(values or {})

    def without(self, folder: str) -> ProblemError:
        """The same problem, for somebody who may not see where a folder is."""

        def hidden(value: Any) -> Any:
            if not isinstance(value, str):
                return value
            return value.replace(folder + os.sep, "").replace(folder, "here")

        values = {name: hidden(value) for name, value in self.values.items()}
        return ProblemError(
            self.status, hidden(self.detail), self.kind, self.headers, self.further, self.code,
            values,
        )  # fmt: skip

    def words(self, language: str) -> str:
        """What was wrong, and what to do, for people, in a language."""
        return problem_in_words(self.code, self.values, language, self.detail) or self.detail

    def response(self, language: str | None, *, page: bool = False) -> Response:
        """The answer, as JSON or as a page for people.

        Args:
            language: of the person; None if it is not known.
            page: whether a page is wanted.
        """
        if page:
            known = language or DEFAULT
            text = text_of(known)
            is_token = self.status == HTTPStatus.UNAUTHORIZED
            heading = text("problem.token" if is_token else "problem.heading")
            body = _PAGE.format(
                language=known,
                title=html.escape(f"{heading} ({self.status})"),
                detail=html.escape(self.words(known)),
                script=_SIGNED_OUT if is_token else "",
            )
            return HTMLResponse(body, self.status, self.headers)
        words = {} if language is None else {"words": self.words(language)}
        facts = {
            "type": f"urn:face2vec:problem:{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "values": self.values,
            **words,
            **self.further,
        }
        return JSONResponse(facts, self.status, self.headers, MEDIA_TYPE)


class NotThereError(GalleryError):
    """A photo, face, person or job that the gallery does not have."""


def problem_of(error: Face2VecError) -> ProblemError:
    """The problem for an error of the engine."""
    if isinstance(error, NotThereError):
        return ProblemError(404, str(error), "not-found", code=error.code, values=error.values)
    code, values = code_of(error)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if error.code == "disk-full":
        status = HTTPStatus.INSUFFICIENT_STORAGE
    return ProblemError(
        status,
        str(error),
        kind_of(type(error)),
        further=_further(error),
        code=code,
        values=values,
    )


def _further(error: Face2VecError) -> dict[str, Any]:
    """What the JSON of an error has besides what every problem has."""
    if not isinstance(error, OtherEditError):
        return {}
    last = None if error.what is None else {"what": error.what, "made": error.made}
    return {"last": last}


def install(
    app: FastAPI,
    page: Callable[[Request, ProblemError], Response],
    shown: Callable[[Request, ProblemError], ProblemError],
) -> None:
    """Answer every error of an application with problem details.

    Args:
        app: the application.
        page: makes a page of a problem, for people who have asked for one.
        shown: makes of a problem what whoever asks may see of it.
    """

    def answer(request: Request, problem: ProblemError) -> Response:
        problem = shown(request, problem)
        if _is_for_a_person(request):
            return page(request, problem)
        return problem.response(language_asked(request.cookies, request.headers))

    @app.exception_handler(ProblemError)
    def of_problem(request: Request, error: ProblemError) -> Response:
        return answer(request, error)

    @app.exception_handler(Face2VecError)
    def of_engine(request: Request, error: Face2VecError) -> Response:
        return answer(request, problem_of(error))

    @app.exception_handler(RequestValidationError)
    def of_request(request: Request, error: RequestValidationError) -> Response:
        in_path = any(one["loc"][:1] == ("path",) for one in error.errors())
        if in_path and _is_for_a_person(request):  # an address such as /people/nobody
            return page(request, ProblemError(404, "there is no such page", "not-found"))
        causes = (one.get("ctx", {}).get("error") for one in error.errors())
        code = next((one.code for one in causes if hasattr(one, "code")), "")
        problem = ProblemError(422, _validation(error.errors()), "invalid-request", code=code)
        return answer(request, problem)

    @app.exception_handler(HTTPException)
    def of_http(request: Request, error: HTTPException) -> Response:
        return answer(
            request, ProblemError(error.status_code, str(error.detail), headers=error.headers)
        )

    @app.exception_handler(OSError)
    def of_system(request: Request, error: OSError) -> Response:
        if is_full_disk(error):
            return answer(request, problem_of(not_written(error)))
        raise error

    @app.exception_handler(Exception)
    def of_anything(request: Request, error: Exception) -> Response:
        problem = ProblemError(500, f"{BUG}{type(error).__name__}")
        return problem.response(language_asked(request.cookies, request.headers))


def _is_for_a_person(request: Request) -> bool:
    """Whether a browser has asked for a page, and not a program for JSON."""
    is_api = request.url.path.startswith("/v1/")
    return not is_api and "text/html" in request.headers.get("accept", "")


def _validation(errors: Any) -> str:
    """What is wrong with a request, one clause for each value."""
    found = []
    for one in errors:
        if one.get("type") == "json_invalid":
            found.append(f"the body is not JSON, at character {one['loc'][-1]}")
            continue
        place = ".".join(str(part) for part in one.get("loc", ()) if part != "body") or "the body"
        found.append(f"{place}: {str(one.get('msg', 'invalid')).lower()}")
    return "; ".join(found[:10])
