"""What errors and reasons of the engine are called on the pages."""

from __future__ import annotations

import ast
import copy
import json
import pickle
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

import face2vec
from face2vec.encoding.quality import outside
from face2vec.errors import DownloadError, GalleryError, NoFaceError, PhotoError, SettingsError
from face2vec.ingest import reembed
from face2vec.photos import formats
from face2vec.server import api, decoders, texts
from face2vec.server.problems import NotThereError, ProblemError, problem_of
from face2vec.server.texts import number
from face2vec.server.words import (
    calibration_in_words,
    doubt_in_words,
    job_in_words,
    problem_in_words,
    reason_in_words,
)
from face2vec.types import QualityParts, Reason

SOURCE = Path(face2vec.__file__).parent
LOOKED_UP = {"kind", "writer", "reason", "names"}
"""Values that are themselves said in the language of the reader."""


def calls(name: str) -> Iterator[ast.Call]:
    """All calls of a function or method in the package."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and name in (
                getattr(node.func, "attr", ""),
                getattr(node.func, "id", ""),
            ):
                yield node


def constants(node: ast.expr) -> set[str]:
    """The texts that an expression may be."""
    if isinstance(node, ast.IfExp):
        return constants(node.body) | constants(node.orelse)
    return {str(node.value)} if isinstance(node, ast.Constant) else set()


def places(words: str) -> set[str]:
    """The names of the places for values in a text."""
    return {name for _, name, _, _ in string.Formatter().parse(words) if name}


@pytest.mark.parametrize("language", texts.languages())
def test_every_code_of_an_error_has_words_for_what_it_names(language: str) -> None:
    known = texts.catalogue(language)
    found = 0
    for call in calls("coded"):
        named = {one.arg for one in call.keywords}
        for code in constants(call.args[0]):
            assert places(known[f"error.{code}"]) <= named, code
            found += 1
    assert found > 25


@pytest.mark.parametrize("language", texts.languages())
def test_every_doubt_of_a_match_has_words(language: str) -> None:
    codes = {code for call in calls("Reason") if len(call.args) > 1
             for code in constants(call.args[1])}  # fmt: skip
    known = texts.catalogue(language)
    assert len(codes) == 7
    assert codes == {key.removeprefix("doubt.") for key in known if key.startswith("doubt.")}


def test_reasons_of_photos_are_said_in_german() -> None:
    reasons = {
        value
        for name, value in vars(formats).items()
        if name.isupper() and isinstance(value, str) and " " in f"{value} "
    }
    for reason in {*reasons, reembed.CHANGED, decoders.STOPPING}:
        german = reason_in_words(reason, "de")
        assert german != reason, reason
        assert reason_in_words(reason, "en") == reason


@pytest.mark.parametrize(
    ("reason", "german"),
    [
        ("40% of its rows are missing", "40 % der Zeilen fehlen"),
        ("detail is missing in 100% of its rows", "in 100 % der Zeilen fehlen Einzelheiten"),
        ("breaks off after 1:02:03", "bricht nach 1:02:03 ab"),
        ("needs face2vec[raw]", "braucht face2vec[raw]"),
        ("it took more than 30 seconds", "dauerte länger als 30 Sekunden"),
        ("something new", "something new"),
    ],
)
def test_reasons_keep_their_values(reason: str, german: str) -> None:
    assert reason_in_words(reason, "de") == german
    assert reason_in_words(reason, "en") == reason


def parts(**values: float) -> QualityParts:
    usual = {"face": 1.0, "size": 100.0, "sharpness": 1.0, "yaw": 0.0, "pitch": 0.0, "roll": 0.0,
             "covered": 0.0, "child": 0.0}  # fmt: skip
    return QualityParts(**usual | values)


def test_doubts_of_the_engine_are_english_and_have_a_code() -> None:
    blurred = parts(size=12.4, covered=0.9)
    reasons = outside(blurred, blurred)
    assert reasons == ("both faces are covered", "one crop has only 12 pixels")
    assert [doubt_in_words(one, "de") for one in reasons] == [
        "beide Gesichter sind verdeckt",
        "ein Ausschnitt hat nur 12 Pixel",
    ]
    assert [doubt_in_words(one, "en") for one in reasons] == list(reasons)


def test_reason_keeps_its_code_in_copies() -> None:
    (reason,) = outside(parts(size=9), parts())
    for again in (copy.deepcopy(reason), pickle.loads(pickle.dumps(reason))):
        assert (again, again.code, again.values) == (reason, "few-pixels", {"pixels": 9})
        assert isinstance(again, Reason)


def test_problems_are_said_with_their_values() -> None:
    taken = GalleryError("person 3 already has …").coded("name-taken", name="{Ada}", person=3)
    problem = problem_of(taken)
    assert problem.words("de").startswith("Person 3 hat den Namen {Ada} schon.")
    broken = problem_of(PhotoError("a.jpg", formats.TRUNCATED, "at byte 9"))
    assert broken.words("de") == "a.jpg: abgeschnitten"
    assert broken.detail == "a.jpg: truncated (at byte 9)"
    gone = problem_of(NotThereError("there is no face 7 in the gallery").coded("no-face", number=7))
    assert (gone.status, gone.words("de")) == (404, "Das Gesicht 7 ist nicht mehr in der Galerie.")
    names = {"names": ["Ada", "Bo"]}
    assert "Ada, Bo" in str(problem_in_words("different-names", names, "de"))


def test_problem_without_words_is_said_as_the_engine_says_it() -> None:
    assert problem_of(SettingsError("k must be at least 1")).words("de") == "k must be at least 1"
    assert ProblemError(418, "a teapot").words("de") == "a teapot"


def test_error_without_a_code_is_said_by_its_class() -> None:
    failed = DownloadError("no file at the address of mini2")
    german = problem_of(failed).words("de")
    assert german == "Das Modell ließ sich nicht herunterladen (no file at the address of mini2)"
    assert job_in_words(failed, str(failed), "de", hides_paths=False) == german
    assert problem_of(failed).words("en") == str(failed)
    # The words for this code name a value that this error has not.
    assert problem_of(NoFaceError("no face in a.jpg")).words("de") == "no face in a.jpg"


def test_calibration_of_the_package_is_described_in_german() -> None:
    shipped = json.loads((SOURCE / "models" / "mini.calibration.json").read_text("utf-8"))
    german = calibration_in_words(shipped["data"], "de")
    assert calibration_in_words(shipped["data"], "en") == shipped["data"]
    people = number(shipped["people"], "de")
    assert german == f"10.000 kleinen Fotos von {people} Personen aus CelebA"
    own = "people of our village"
    assert calibration_in_words(own, "de") == f"„{own}“"


@pytest.mark.parametrize("language", set(texts.languages()) - {"en"})
def test_every_route_has_words_in_each_language(language: str) -> None:
    routes = {
        f"{method} {route.path}"
        for route in api.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    own = texts.catalogue(language)
    assert routes == {key.removeprefix("route.") for key in own if key.startswith("route.")}


@pytest.mark.parametrize("language", set(texts.languages()) - {"en"})
def test_every_text_is_translated(language: str) -> None:
    english = texts.catalogue("en")
    own = json.loads((texts.FOLDER / f"{language}.json").read_text("utf-8"))
    alike = {key for key, words in english.items() if own.get(key, words) == words}
    words = {key: re.sub("{.*?}", "", english[key]) for key in alike}
    several = {key for key in alike if len(re.findall("[a-zA-Z]{2,}", words[key])) > 1}
    assert several == {"title"}  # the name of the package
    assert "js.almost" not in alike


def test_writer_is_named_in_the_language_of_the_reader() -> None:
    writer = "process 12 on here since 2024-05-01T10:00:00+02:00"
    german = problem_in_words("written-elsewhere", {"writer": writer}, "de")
    assert german == "In die Galerie schreibt Prozess 12 auf here."
    german = problem_in_words("written-elsewhere", {"writer": "another process"}, "de")
    assert german == "In die Galerie schreibt ein anderer Prozess."


def test_job_says_why_it_failed_and_hides_paths() -> None:
    full = GalleryError("the disk of /a is full").coded("disk-full", folder="/a")
    assert job_in_words(full, str(full), "de", hides_paths=False).startswith("Der Datenträger")
    assert job_in_words(full, str(full), "de", hides_paths=True) == "Er ist fehlgeschlagen."
    assert job_in_words(None, "", "de", hides_paths=False) == ""
    odd = GalleryError("something at /a")
    assert job_in_words(odd, str(odd), "de", hides_paths=False) == "something at /a"
