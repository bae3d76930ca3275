"""The service, on a real server: who may come in, what is answered, and what is refused."""

from __future__ import annotations

import contextlib
import errno
import html
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from click.testing import CliRunner
from helpers import Started, needs
from PIL import Image
from serving import READ_TOKEN, TOKEN, Limits, Served, add_missed, copied, served

from face2vec import Client, Face2Vec, samples
from face2vec.cli.main import main
from face2vec.cli.serve import _ended_by_signals
from face2vec.errors import (
    Face2VecError,
    GalleryDamagedError,
    GalleryLockedError,
    PhotoError,
    SettingsError,
)
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.thumbnails import FOLDER
from face2vec.server import texts
from face2vec.server.access import Rates
from face2vec.server.edits import described
from face2vec.server.problems import ProblemError
from face2vec.server.service import Service
from face2vec.server.settings import Settings, token_from
from face2vec.server.sharing import SharedEncoder
from face2vec.types import Photo


@pytest.fixture(scope="module")
def drawn(drawn_service: Path) -> Path:
    return drawn_service


@pytest.fixture(scope="module")
def service(drawn: Path) -> Iterator[Served]:
    """A service that tests only read from."""
    with served(drawn) as one:
        yield one


@pytest.fixture
def fresh(drawn: Path, tmp_path: Path) -> Iterator[Served]:
    """A service over a copy of the gallery, to be changed."""
    with served(copied(drawn, tmp_path), roots=(drawn / "photos",)) as one:
        yield one


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A JPEG of drawn person 0 that is not in the gallery."""
    file = tmp_path_factory.mktemp("query") / "who.jpg"
    samples.people(1, seed=3)[0].photo(99).save(file)
    return file.read_bytes()


def problem(answer: Any, status: int, kind: str) -> str:
    """The words of a problem, after checking its form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert (found["status"], found["type"]) == (status, f"urn:face2vec:problem:{kind}")
    assert isinstance(found["title"], str)
    return str(found["detail"])


def upload(data: bytes, name: str = "who.jpg") -> dict[str, Any]:
    return {"photo": (name, data)}


def people_of(service: Served) -> dict[str | None, dict[str, Any]]:
    return {one["name"]: one for one in service.get("/v1/people")["people"]}


# Who may come in


@pytest.mark.parametrize(
    "path", ["/", "/v1/info", "/metrics", "/docs", "/openapi.json", "/static/x"]
)
def test_access_without_token_is_refused(service: Served, path: str) -> None:
    assert "Authorization: Bearer" in problem(service.nobody.get(path), 401, "no-token")


def test_access_without_token_shows_people_a_page(service: Served) -> None:
    answer = service.nobody.get("/people", headers={"Accept": "text/html"})
    assert answer.status_code == 401
    assert "<h1>A token is needed (401)</h1>" in answer.text
    german = {"Accept": "text/html", "Accept-Language": "de-AT,de;q=0.9"}
    page = service.nobody.get("/people", headers=german).text
    assert '<html lang="de">' in page
    assert "<h1>Ein Token ist nötig (401)</h1>" in page
    assert "Öffnen Sie die ganze Adresse" in page


@pytest.mark.parametrize("token", ["x", "x" * 22, TOKEN[:-1], TOKEN + "0", "é" * 22])
def test_access_with_wrong_token_is_refused(service: Served, token: str) -> None:
    headers = {"Authorization": b"Bearer " + token.encode()}
    answer = service.nobody.get("/v1/info", headers=headers)
    assert "'Authorization' is wrong" in problem(answer, 401, "wrong-token")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    answer = service.nobody.get("/", params={"token": token})
    assert "address is wrong" in problem(answer, 401, "wrong-token")


def test_health_is_public(service: Served) -> None:
    assert service.nobody.get("/healthz").text == "ok"
    assert service.nobody.get("/readyz").text == "ready"


def test_token_in_the_address_becomes_a_cookie(service: Served) -> None:
    answer = service.nobody.get(f"/people?name=A&token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/people?name=A")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    name, _, rest = cookie.partition("=")
    kept = {"Cookie": f"{name}={rest.partition(';')[0]}"}
    assert service.nobody.get("/v1/info", headers=kept).status_code == 200
    service.nobody.cookies.clear()


def test_token_redirect_stays_on_this_site(service: Served) -> None:
    answer = service.nobody.get(f"//evil.example/?token={TOKEN}")
    assert answer.headers["location"] == "/"
    answer = service.nobody.get(f"/%2F/evil.example/?token={TOKEN}")
    assert answer.headers["location"] == "/evil.example/"
    service.nobody.cookies.clear()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example"])
def test_other_host_names_are_refused(service: Served, host: str) -> None:
    problem(service.http.get("/v1/info", headers={"Host": host}), 421, "host")


def test_changes_by_pages_of_other_sites_are_refused(service: Served) -> None:
    cookie = service.nobody.get(f"/?token={TOKEN}").headers["set-cookie"].partition(";")[0]
    service.nobody.cookies.clear()
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = service.nobody.post("/v1/edits/undo", headers={"Cookie": cookie, **headers})
        problem(answer, 403, "cross-site")


def test_read_token_can_search_and_not_edit(service: Served, query: bytes) -> None:
    reader = service.reader
    assert reader.post("/v1/search/photo", files=upload(query)).status_code == 200
    for method, path in (
        ("POST", "/v1/edits/undo"),
        ("PATCH", "/v1/people/1"),
        ("DELETE", "/v1/people/1"),
        ("DELETE", "/v1/faces/1"),
        ("POST", "/v1/jobs"),
    ):
        problem(reader.request(method, path, json={}), 403, "read-only")


def test_read_token_sees_no_paths(service: Served, query: bytes) -> None:
    folder = str(service.folder)
    for path in ("/v1/info", "/v1/photos", "/v1/photos/1", "/v1/faces/1", "/photos", "/photos/1"):
        answer = service.reader.get(path)
        assert answer.status_code == 200
        assert folder not in answer.text
    found = service.reader.post("/v1/search/photo", files=upload(query))
    assert found.json()["results"][0]["matches"][0]["path"] is None
    assert folder in service.http.get("/photos").text


def test_read_token_sees_no_paths_in_errors(
    fresh: Served, query: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fresh.folder / "gallery" / "gallery.sqlite"

    def damaged(*_: object, **__: object) -> None:
        raise GalleryDamagedError(f"the gallery file {file} is damaged")

    monkeypatch.setattr("face2vec.server.service.Service.search", damaged)
    for client, place in ((fresh.http, str(file)), (fresh.reader, "gallery.sqlite")):
        answer = client.post("/v1/search/photo", files=upload(query))
        detail = problem(answer, 422, "gallery-damaged")
        assert detail == f"the gallery file {place} is damaged"


def test_pages_have_a_strict_policy(service: Served) -> None:
    headers = service.http.get("/people").headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_pages_have_no_inline_script_or_style(service: Served) -> None:
    for path in ("/", "/people", "/people/1", "/review", "/photos", "/photos/1", "/jobs", "/docs"):
        page = service.http.get(path).text
        for tag in page.split("<script")[1:]:
            opening, _, _rest = tag.partition(">")
            assert "src=" in opening or 'type="application/json"' in opening
        assert " style=" not in page
        assert "<style" not in page
        assert " onclick=" not in page
        assert "http://" not in page
        assert "https://" not in page


def test_address_without_a_page_shows_people_the_menu(service: Served) -> None:
    accept = {"Accept": "text/html", "Accept-Language": "de"}
    answer = service.http.get("/nosuch", headers=accept)
    assert (answer.status_code, answer.headers["content-language"]) == (404, "de")
    assert '<a href="/people">Personen</a>' in answer.text
    assert "<h1>Nicht gefunden</h1>" in answer.text
    assert "Unter dieser Adresse gibt es keine Seite." in answer.text
    answer = service.http.get("/people/nobody", headers=accept)
    assert (answer.status_code, answer.headers["content-language"]) == (404, "de")
    assert '<a href="/people">Personen</a>' in answer.text
    assert "Unter dieser Adresse gibt es keine Seite." in answer.text
    answer = service.http.post("/people", headers=accept)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    for path, headers in (("/nosuch", {"Accept": "application/json"}), ("/v1/nosuch", accept)):
        problem(service.http.get(path, headers=headers), 404, "not-found")


# Limits


def test_large_body_is_refused(drawn: Path, query: bytes) -> None:
    with served(drawn, limits=Limits(upload_bytes=len(query) // 2)) as service:
        problem(service.http.post("/v1/detect", files=upload(query)), 413, "too-large")
        piece = b"x" * 1000

        def pieces() -> Iterator[bytes]:
            for _ in range(len(query) // 1000):
                yield piece

        headers = {"Content-Type": "application/json"}
        answer = service.http.post("/v1/search", content=pieces(), headers=headers)
        problem(answer, 413, "too-large")


def test_slow_body_is_refused(drawn: Path) -> None:
    with served(drawn, limits=Limits(body_seconds=0.3)) as service:
        host, port = service.base.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 30) as connection:
            connection.sendall(
                b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"
                b"Content-Type: application/json\r\n"
                + f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
            )
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert service.get("/v1/info")["photos"] > 0


def test_requests_over_the_rate_are_refused() -> None:
    rates = Rates(5.0)
    assert [rates.is_over("a") for _ in range(12)].count(True) == 2
    assert not rates.is_over("b")
    assert not any(Rates(None).is_over("a") for _ in range(100))


def test_large_batches_are_refused(service: Served) -> None:
    most = Limits().batch
    answer = service.http.post("/v1/search", json={"queries": [{"face": 1}] * (most + 1)})
    assert str(most) in problem(answer, 413, "too-large")
    answer = service.http.post("/v1/search", json={"queries": [{"face": 1}], "k": 1001})
    assert "1000" in problem(answer, 422, "too-large")


def test_upload_with_too_many_pixels_is_refused(drawn: Path, query: bytes) -> None:
    with served(drawn, limits=Limits(pixels=1000)) as service:
        answer = service.http.post("/v1/detect", files=upload(query))
        assert "who.jpg" in problem(answer, 422, "photo")


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="the limit needs a POSIX system")
def test_upload_that_needs_too_much_memory_is_refused(drawn: Path, query: bytes) -> None:
    stream = io.BytesIO()
    Image.new("F", (6000, 6000)).save(stream, "TIFF", compression="tiff_deflate")
    with served(drawn, limits=Limits(memory=100 * 2**20)) as service:
        problem(service.http.post("/v1/detect", files=upload(stream.getvalue())), 422, "photo")
        assert service.post("/v1/detect", files=upload(query))["faces"]


@pytest.mark.parametrize("data", [b"", b"no photo", b"\xff\xd8\xff\xe0" + bytes(1000)])
def test_upload_that_is_no_photo_is_refused(service: Served, data: bytes) -> None:
    answer = service.http.post("/v1/encode", files=upload(data, "holiday.jpg"))
    assert "holiday.jpg" in problem(answer, 422, "photo")


def test_shared_encoder_refuses_when_too_many_wait() -> None:
    hold = threading.Event()

    class Slow:
        def batch(self, photos: list[Photo]) -> list[Any]:
            hold.wait()
            raise PhotoError("x", "released")

    encoder: Any = Slow()
    sizes: list[int] = []
    shared = SharedEncoder(lambda: encoder, 1, 2, 60.0, sizes.append)
    photo = Photo("x", np.zeros((8, 8, 3), np.uint8), 8, 8)
    errors: list[Exception] = []

    def ask() -> None:
        try:
            shared.encode(photo)
        except (PhotoError, ProblemError) as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    threads[0].start()
    while not sizes:
        time.sleep(0.01)
    for thread in threads[1:]:
        thread.start()
    while shared._queue.qsize() < 2:
        time.sleep(0.01)
    with pytest.raises(ProblemError, match="too many photos are waiting"):
        shared.encode(photo)
    hold.set()
    for thread in threads:
        thread.join()
    shared.close()
    assert sizes == [1, 2]  # what waited shared a batch
    assert [str(error) for error in errors] == ["x: released"] * 3


# Queries


def test_encode_gives_what_the_engine_gives(service: Served) -> None:
    photo = service.photo("groups/0.jpg")
    found = service.post("/v1/encode", files=upload(photo.read_bytes()))
    with Face2Vec(service.folder / "gallery") as engine:
        faces = engine.encode(photo)
    assert len(found["faces"]) == len(faces) > 1
    for one, face in zip(found["faces"], faces, strict=True):
        np.testing.assert_allclose(one["box"], face.box, atol=1e-3)
        np.testing.assert_allclose(one["embedding"], face.embedding, atol=1e-5)
        assert one["confidence"] == pytest.approx(face.confidence)
    largest = max(
        found["faces"], key=lambda one: np.prod(np.subtract(one["box"][2:], one["box"][:2]))
    )
    assert found["chosen"] == largest["number"]


def test_detect_gives_no_embedding_and_a_preview_if_asked(service: Served, query: bytes) -> None:
    found = service.post("/v1/detect", files=upload(query))
    assert found["faces"][0]["embedding"] is None
    assert found["preview"] is None
    found = service.post("/v1/detect", files=upload(query), data={"preview": "true"})
    assert found["preview"].startswith("data:image/webp;base64,")


def test_boxes_of_a_reduced_upload_are_in_pixels_of_the_photo(
    service: Served, query: bytes
) -> None:
    small = Image.open(io.BytesIO(query))
    stream = io.BytesIO()
    small.resize((small.width * 20, small.height * 20)).save(stream, "JPEG", quality=80)
    (one,) = service.post("/v1/detect", files=upload(query))["faces"]
    found = service.post("/v1/detect", files=upload(stream.getvalue()))
    assert (found["width"], found["height"]) == (small.width * 20, small.height * 20)
    np.testing.assert_allclose(np.divide(found["faces"][0]["box"], 20), one["box"], atol=6)


def test_search_gives_what_the_engine_gives(service: Served, query: bytes) -> None:
    (found,) = service.post("/v1/search/photo", files=upload(query), data={"k": "5"})["results"]
    with Face2Vec(service.folder / "gallery") as engine:
        (result,) = engine.search(query, 5)
    assert [one["face"] for one in found["matches"]] == [one.face.id for one in result.matches]
    for one, match in zip(found["matches"], result.matches, strict=True):
        assert one["similarity"] == pytest.approx(match.similarity, abs=1e-5)
        assert one["probability"] == pytest.approx(match.probability, abs=1e-4)
        assert one["path"] == match.photo
    assert found["matches"][0]["name"] == "Ada"
    assert not any(one["query_photo"] for one in found["matches"])


def test_search_tells_the_query_photo_apart(service: Served) -> None:
    data = service.photo("person-002/0.jpg").read_bytes()
    (found,) = service.post("/v1/search/photo", files=upload(data))["results"]
    assert [one["rank"] for one in found["matches"] if one["query_photo"]] == [1]


def test_search_filters_by_person_folder_and_face(service: Served) -> None:
    ada = service.get(f"/v1/people/{people_of(service)['Ada']['id']}")
    one = {"queries": [{"face": ada["face_ids"][0]}], "k": 50}
    (found,) = service.post("/v1/search", one | {"person": ada["id"]})["results"]
    assert {match["face"] for match in found["matches"]} == set(ada["face_ids"][1:])
    folder = str(service.photo("groups"))
    (found,) = service.post("/v1/search", one | {"folder": folder})["results"]
    assert found["matches"]
    assert all(match["path"].startswith(folder + os.sep) for match in found["matches"])
    (whole,) = service.post("/v1/search", one)["results"]
    first, *others = [match["face"] for match in whole["matches"]]
    (found,) = service.post("/v1/search", one | {"without": [first]})["results"]
    assert [match["face"] for match in found["matches"]] == others
    assert [match["rank"] for match in found["matches"]] == list(range(1, len(others) + 1))


def test_search_for_one_person_takes_the_mean(service: Served) -> None:
    with Face2Vec(service.folder / "gallery") as engine:
        one, two = (
            engine.encode(service.photo("person-003/0.jpg")),
            engine.encode(service.photo("person-003/1.jpg")),
        )
        mean = one[0].embedding + two[0].embedding
        (result,) = engine.search(mean / np.linalg.norm(mean), 3)
    queries = [{"embedding": face.embedding.tolist()} for face in (one[0], two[0])]
    wanted = {"queries": queries, "one_person": True, "k": 3}
    (found,) = service.post("/v1/search", wanted)["results"]
    assert [match["face"] for match in found["matches"]] == [m.face.id for m in result.matches]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"embedding": [0.0] * 256}, "length 0"),
        ({"embedding": [1.0, 2.0]}, "2"),
        ({}, "either a face or an embedding"),
        ({"face": 1, "embedding": [1.0]}, "either a face or an embedding"),
        ({"face": -1}, "greater than"),
    ],
)
def test_search_with_a_wrong_query_says_what_is_wrong(
    service: Served, query: dict[str, Any], words: str
) -> None:
    answer = service.http.post("/v1/search", json={"queries": [query]})
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_verify_and_identify_give_what_the_engine_gives(service: Served, query: bytes) -> None:
    first, second = (service.photo(f"person-00{n}/0.jpg") for n in (0, 1))
    with Face2Vec(service.folder / "gallery") as engine:
        known = engine.verify(first, query), engine.verify(first, second)
        (who,) = engine.identify(query)
    for other, expected in zip((query, second.read_bytes()), known, strict=True):
        files = {"first": first.read_bytes(), "second": other}
        found = service.post("/v1/verify/photos", files=files)
        assert found["same"] == expected.same
        assert found["probability"] == pytest.approx(expected.probability, abs=1e-4)
    (found,) = service.post("/v1/identify/photo", files=upload(query))["results"]
    assert (found["name"], found["person"]) == ("Ada", who.person.id if who.person else None)
    assert found["probability"] == pytest.approx(who.probability, abs=1e-4)


# Photos


def test_photos_are_listed_by_status_folder_and_person(service: Served) -> None:
    with Face2Vec(service.folder / "gallery") as engine:
        paths = [one.photo for one in engine.photos()]
    found = service.get("/v1/photos", params={"limit": 500})
    assert sorted(one["path"] for one in found["photos"]) == sorted(paths)
    assert found["total"] == len(paths)
    second = service.get("/v1/photos", params={"limit": 3, "skip": 3})["photos"]
    assert second == found["photos"][3:6]
    assert service.get("/v1/photos", params={"status": "unreadable"})["total"] == 0
    folder = str(service.photo("person-001"))
    inside = service.get("/v1/photos", params={"folder": folder})["photos"]
    assert [one["path"] for one in inside] == [p for p in sorted(paths) if p.startswith(folder)]
    ada = people_of(service)["Ada"]
    assert service.get("/v1/photos", params={"person": ada["id"]})["total"] == ada["faces"]


@pytest.mark.parametrize("path", ["/v1/photos/999999", "/v1/faces/999999", "/v1/people/999999"])
def test_what_is_not_in_the_gallery_is_not_found(service: Served, path: str) -> None:
    problem(service.http.get(path), 404, "not-found")


def test_mark_of_pages_changes_with_the_token_and_when_somebody_is_forgotten(fresh: Served) -> None:
    def mark(client: httpx.Client) -> str:
        page = client.get("/people", headers={"Accept": "text/html"}).text
        (data,) = re.findall(r'id="data">(.*?)</script>', page)
        return str(json.loads(data)["mark"])

    before = mark(fresh.http)
    assert TOKEN not in before
    assert mark(fresh.reader) != before
    fresh.http.patch(f"/v1/people/{people_of(fresh)['Bob']['id']}", json={"name": "Rob"})
    assert mark(fresh.http) == before
    assert fresh.http.delete(f"/v1/people/{people_of(fresh)['Ada']['id']}").is_success
    assert mark(fresh.http) != before


def test_page_that_asks_for_a_token_clears_what_the_tab_has_kept(service: Served) -> None:
    page = service.nobody.get("/people", headers={"Accept": "text/html"})
    assert page.status_code == 401
    (script,) = re.findall(r'<script src="(.*?)">', page.text)
    assert "sessionStorage.clear()" in service.nobody.get(script).text


def test_pictures_are_webp_of_the_asked_size(service: Served) -> None:
    for path, side in (
        ("/v1/faces/1/thumbnail?side=96", 96),
        ("/v1/photos/1/picture?side=64", 64),
        ("/v1/photos/1/picture?side=240", 240),
    ):
        answer = service.http.get(path)
        picture = Image.open(io.BytesIO(answer.content))
        assert (picture.format, max(picture.size)) == ("WEBP", side)
        assert answer.headers["cache-control"] == "no-store"
        assert "etag" not in answer.headers


# People


def test_edits_of_people_are_undone_one_by_one(fresh: Served) -> None:
    before = fresh.get("/v1/people", params={"limit": 500})
    unnamed = [one for one in before["people"] if one["name"] is None]
    person = unnamed[0]["id"]
    faces = fresh.get(f"/v1/people/{person}")["face_ids"]
    now = int(time.time())
    fresh.http.patch(f"/v1/people/{person}", json={"name": "Zoë"}).raise_for_status()
    fresh.http.patch(f"/v1/people/{person}", json={"hidden": True}).raise_for_status()
    fresh.http.patch(f"/v1/people/{person}", json={"cover": faces[-1]}).raise_for_status()
    new = fresh.post(f"/v1/people/{person}/split", {"faces": faces[:1]})
    fresh.post(f"/v1/people/{new['id']}/merge", {"people": [people_of(fresh)["Ada"]["id"]]})
    assert fresh.get(f"/v1/people/{person}")["hidden"]
    assert fresh.get(f"/v1/people/{person}")["cover"] == faces[-1]
    assert "Zoë" not in people_of(fresh)  # hidden
    edits = fresh.get("/v1/edits")["edits"]
    assert [one["what"].split()[0] for one in edits[:5]] == [
        "merge", "split", "choice", "hiding", "name"
    ]  # fmt: skip
    assert all(now <= one["made"] <= now + 60 for one in edits[:5])
    for one in edits[:5]:
        assert fresh.post("/v1/edits/undo")["what"] == one["what"]
    assert fresh.get("/v1/people", params={"limit": 500}) == before


def test_people_are_hidden_in_one_edit(fresh: Served) -> None:
    before = fresh.get("/v1/people", params={"limit": 500})
    numbers = [one["id"] for one in before["people"][:3]]
    done = fresh.post("/v1/people/hide", {"people": numbers})
    assert [(one["id"], one["hidden"]) for one in done["people"]] == [(n, True) for n in numbers]
    hidden = fresh.get("/v1/people", params={"hidden": True})
    assert {one["id"] for one in hidden["people"]} == set(numbers)
    fresh.post("/v1/people/hide", {"people": numbers[:2], "hidden": False})
    german = {"params": {"limit": 2, "language": "de"}}
    assert [(one["what"], one["words"]) for one in fresh.get("/v1/edits", **german)["edits"]] == [
        ("showing of 2 people", "2 Personen wieder gezeigt"),
        ("hiding of 3 people", "3 Personen ausgeblendet"),
    ]
    for _ in range(2):
        fresh.post("/v1/edits/undo")
    assert fresh.get("/v1/people", params={"limit": 500}) == before
    problem(
        fresh.http.post("/v1/people/hide", json={"people": [*numbers, 10**6]}), 404, "not-found"
    )
    problem(fresh.reader.post("/v1/people/hide", json={"people": numbers}), 403, "read-only")
    assert fresh.get("/v1/people", params={"limit": 500}) == before


def test_faces_of_a_new_person_are_named_in_one_edit(fresh: Served) -> None:
    ada = people_of(fresh)["Ada"]
    faces = fresh.get(f"/v1/people/{ada['id']}")["face_ids"]
    count = len(fresh.get("/v1/edits")["edits"])
    made = fresh.post("/v1/people", {"faces": faces[:2], "name": "Zoe\u0301"})
    (last, *_) = edits = fresh.get("/v1/edits", params={"language": "en"})["edits"]
    assert (len(edits), last["words"]) == (count + 1, "named 2 faces Zoe\u0301")
    again = fresh.post("/v1/people", {"faces": faces[2:3], "name": " Zo\u00e9 "})
    assert (again["id"], again["faces"]) == (made["id"], 3)
    for _ in range(2):
        fresh.post("/v1/edits/undo")
    assert fresh.get(f"/v1/people/{ada['id']}")["face_ids"] == faces
    assert "Zoe\u0301" not in people_of(fresh)


def test_answer_no_is_kept_when_people_are_found_again(fresh: Served) -> None:
    asked = fresh.get("/v1/suggestions", params={"limit": 200})["suggestions"]
    sides = [one for one in asked if one["first"]["person"] and one["second"]["person"]]
    one = sides[0]
    fresh.post(
        "/v1/suggestions/answer",
        {"first": one["first"], "second": one["second"], "same": False},
    )
    left = fresh.get("/v1/suggestions", params={"limit": 200})["suggestions"]
    assert one not in left
    shown = (one["first"]["shown"], one["second"]["shown"])
    job = fresh.post("/v1/jobs", {"kind": "people", "again": True})
    assert ended(fresh, job["id"])["state"] == "done"
    owners = [{fresh.get(f"/v1/faces/{face}")["person"] for face in side} for side in shown]
    assert not (owners[0] & owners[1]) - {None}
    fresh.post("/v1/edits/undo")
    with Face2Vec(fresh.folder / "gallery") as engine, engine.snapshot() as now:
        assert now.apart() == set()


def test_answer_yes_merges_and_keeps_the_name(fresh: Served) -> None:
    asked = fresh.get("/v1/suggestions", params={"limit": 200})["suggestions"]
    one = next(one for one in asked if one["first"]["person"] and one["second"]["person"])
    person = fresh.post(
        "/v1/suggestions/answer", {"first": one["first"], "second": one["second"], "same": True}
    )["person"]
    merged = fresh.get(f"/v1/people/{person}")
    assert merged["faces"] == one["first"]["count"] + one["second"]["count"]
    assert merged["name"] == (one["first"]["name"] or one["second"]["name"])


def test_answer_about_faces_of_others_is_refused(fresh: Served) -> None:
    ada, bob = (people_of(fresh)[name] for name in ("Ada", "Bob"))
    side = {"person": ada["id"], "shown": [bob["cover"]]}
    other = {"person": bob["id"], "shown": [bob["cover"]]}
    answer = fresh.http.post(
        "/v1/suggestions/answer", json={"first": side, "second": other, "same": True}
    )
    assert "does not belong" in problem(answer, 422, "settings")


def test_forgotten_person_leaves_nothing_behind(fresh: Served) -> None:
    ada = fresh.get(f"/v1/people/{people_of(fresh)['Ada']['id']}")
    face = ada["face_ids"][0]
    assert fresh.http.get(f"/v1/faces/{face}/thumbnail").status_code == 200
    kept = fresh.folder / "gallery" / FOLDER
    assert [file.name for file in kept.rglob("*.webp")] == [f"face-{face}-192.webp"]
    assert fresh.http.delete(f"/v1/people/{ada['id']}").json()["left"] == []
    assert not kept.exists()
    for path in (f"/v1/faces/{face}/thumbnail", f"/v1/people/{ada['id']}", f"/people/{ada['id']}"):
        assert fresh.http.get(path).status_code == 404
    assert "there is no edit to undo" in problem(fresh.http.post("/v1/edits/undo"), 422, "gallery")


def test_thumbnails_behind_a_link_are_not_touched(fresh: Served, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "0").mkdir(parents=True)
    (elsewhere / "0" / "mine.webp").write_bytes(b"mine")
    (fresh.folder / "gallery" / FOLDER).symlink_to(elsewhere)
    assert fresh.http.get("/v1/faces/1/thumbnail").status_code == 200
    fresh.http.delete(f"/v1/people/{people_of(fresh)['Ada']['id']}").raise_for_status()
    assert not (fresh.folder / "gallery" / FOLDER).exists()
    assert [file.name for file in elsewhere.rglob("*.webp")] == ["mine.webp"]


def test_ignored_face_leaves_its_photo(fresh: Served) -> None:
    photo = fresh.get("/v1/photos")["photos"][0]
    faces = fresh.get(f"/v1/photos/{photo['id']}")["face_list"]
    fresh.http.delete(f"/v1/faces/{faces[0]['id']}").raise_for_status()
    left = fresh.get(f"/v1/photos/{photo['id']}")["face_list"]
    assert [one["id"] for one in left] == [one["id"] for one in faces[1:]]
    problem(fresh.http.get(f"/v1/faces/{faces[0]['id']}"), 404, "not-found")


def test_hostile_names_are_shown_as_text(fresh: Served) -> None:
    person = people_of(fresh)["Ada"]["id"]
    for name in ("<script>alert(1)</script>", "x" * 200, "{{ 7 * 7 }}", '" onload=alert(1) x="'):
        answer = fresh.http.patch(f"/v1/people/{person}", json={"name": name})
        assert answer.status_code == 200
        for path in ("/people", f"/people/{person}", "/edits", "/photos/1"):
            page = fresh.http.get(path)
            assert page.status_code == 200
            assert "<script>alert" not in page.text
            assert '" onload' not in page.text
            if "7 * 7" in name and "people" in path:
                assert "{{ 7 * 7 }}" in page.text
    for name in ("\u202egpj.exe", "\x1b[2J", "a\nb", "\0", "x" * 201):
        answer = fresh.http.patch(f"/v1/people/{person}", json={"name": name})
        assert "name:" in problem(answer, 422, "invalid-request")


def test_broken_json_is_said_to_be_none(fresh: Service) -> None:
    json_type = {"content-type": "application/json"}
    answer = fresh.http.patch("/v1/people/1", content=b'{"name": ', headers=json_type)
    detail = problem(answer, 422, "invalid-request")
    assert detail == "the body is not JSON, at character 9"


# Jobs


def ended(service: Served, number: int) -> dict[str, Any]:
    for _ in range(2400):
        job: dict[str, Any] = service.get(f"/v1/jobs/{number}")
        if job["state"] not in ("waiting", "running"):
            return job
        time.sleep(0.05)
    raise AssertionError(f"job {number} did not end: {job}")


def test_index_job_adds_photos_below_the_roots(drawn: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    samples.write(root / "new", people=2, photos=2, groups=0, seed=9)
    with served(copied(drawn, tmp_path / "copy"), roots=(root,)) as service:
        before = service.get("/v1/info")["photos"]
        job = service.post("/v1/jobs", {"kind": "index", "folders": [str(root / "new")]})
        done = ended(service, job["id"])
        assert (done["state"], done["done"], done["total"]) == ("done", 4, 4)
        assert done["result"]["added"] == 4
        assert service.get("/v1/info")["photos"] == before + 4
        assert service.get("/v1/photos", params={"folder": str(root)})["total"] == 4


def test_jobs_of_an_earlier_start_are_listed(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACE2VEC_MODELS_URL", "http://127.0.0.1:9")
    folder, root = copied(drawn, tmp_path / "copy"), tmp_path / "root"
    root.mkdir()
    (root / os.fsdecode(b"bad-\xff.jpg")).write_bytes(b"none")
    with served(folder, roots=(root,)) as service:
        service.post("/v1/jobs", {"kind": "index", "folders": [str(root)]})
        service.post("/v1/jobs", {"kind": "upgrade", "model": "20180402-114759"})
        service.http.headers["Accept-Language"] = "de"
        before = [ended(service, number) for number in (2, 1)]
        assert before[0]["words"] != before[0]["error"]
        assert [job["state"] for job in before] == ["failed", "done"]
    with served(folder, roots=(root,)) as service:
        service.http.headers["Accept-Language"] = "de"
        assert service.get("/v1/jobs")["jobs"] == before
        assert service.post("/v1/jobs", {"kind": "rebuild"})["id"] == 3


@pytest.mark.parametrize(
    "place", ["..", "/", "/etc", "photos/../..", "link", "link/missing", "\x00"]
)
def test_index_job_outside_the_roots_is_refused(drawn: Path, tmp_path: Path, place: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to("/etc")
    with served(copied(drawn, tmp_path / "copy"), roots=(root,)) as service:
        folder = place if place.startswith("/") else f"{root}/{place}"
        answer = service.http.post("/v1/jobs", json={"kind": "index", "folders": [folder]})
        assert "--root" in problem(answer, 403, "outside-roots")


@pytest.mark.parametrize(
    ("place", "words"), [("missing", "does not exist"), ("one.jpg", "is not a folder")]
)
def test_index_job_says_that_a_folder_below_a_root_is_none(
    drawn: Path, tmp_path: Path, place: str, words: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "one.jpg").touch()
    with served(copied(drawn, tmp_path / "copy"), roots=(root.resolve(),)) as service:
        for answer in (
            service.http.post("/v1/jobs", json={"kind": "index", "folders": [f"{root}/{place}"]}),
            service.http.get("/v1/folders", params={"path": f"{root}/{place}"}),
        ):
            assert f"{root.resolve()}/{place} {words}" in problem(answer, 422, "folder")


def test_index_job_leaves_out_links_out_of_the_roots(drawn: Path, tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    samples.write(root, people=1, photos=2, groups=0, seed=9)
    samples.write(elsewhere, people=1, photos=2, groups=0, seed=10)
    (root / "link").symlink_to(elsewhere)
    (root / "one.jpg").symlink_to(elsewhere / "person-000" / "0.jpg")
    with served(copied(drawn, tmp_path / "copy"), roots=(root,)) as service:
        job = service.post("/v1/jobs", {"kind": "index", "folders": [str(root)]})
        done = ended(service, job["id"])
        assert (done["state"], done["done"], done["total"]) == ("done", 2, 2)
        found = service.get("/v1/photos", params={"folder": str(elsewhere)})
        assert found["total"] == 0


def test_upgrade_job_takes_keys_of_the_catalogue_only(service: Served, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"secret": 1}')
    for model in (str(tmp_path / "secret.json"), "../secret.onnx", ""):
        answer = service.http.post("/v1/jobs", json={"kind": "upgrade", "model": model})
        assert "catalogue" in problem(answer, 422, "settings")


def test_photo_that_was_replaced_is_not_shown(drawn: Path, tmp_path: Path) -> None:
    samples.write(tmp_path / "photos", people=2, photos=1, groups=0, seed=9)
    one, other = (tmp_path / "photos" / f"person-00{n}" / "0.jpg" for n in (0, 1))
    with Face2Vec(tmp_path / "gallery", model="mini") as engine:
        engine.add(tmp_path / "photos")
    with served(tmp_path) as service:
        (photo,) = [p for p in service.get("/v1/photos")["photos"] if p["path"] == str(one)]
        face = service.get(f"/v1/photos/{photo['id']}")["face_list"][0]["id"]
        before = service.http.get(f"/v1/faces/{face}/thumbnail?side=96").content
        one.write_bytes(other.read_bytes())
        picture = service.http.get(f"/v1/photos/{photo['id']}/picture")
        assert "has changed since it was indexed" in problem(picture, 404, "not-found")
        assert "has changed since" in service.http.get(f"/photos/{photo['id']}").text
        assert service.http.get(f"/v1/faces/{face}/thumbnail?side=96").content == before
        grey = Image.open(io.BytesIO(service.http.get(f"/v1/faces/{face}/thumbnail").content))
        assert grey.getpixel((2, 2)) == pytest.approx((200, 200, 200), abs=4)


def test_service_whose_gallery_was_deleted_makes_no_other(drawn: Path, tmp_path: Path) -> None:
    place = copied(drawn, tmp_path / "copy")
    with served(place) as service:
        person = people_of(service)["Ada"]["id"]
        shutil.rmtree(place / "gallery")
        assert service.nobody.get("/readyz").status_code == 503
        service.http.get("/v1/faces/1/thumbnail")
        answer = service.http.patch(f"/v1/people/{person}", json={"name": "Zoe"})
        assert "no gallery" in problem(answer, 404, "not-found")
        assert not (place / "gallery").exists()


def test_unknown_page_is_a_page(service: Served) -> None:
    for path in ("/nonsense", "/people/abc"):
        answer = service.http.get(path, headers={"Accept": "text/html"})
        assert answer.status_code in (404, 422)
        assert answer.text.startswith("<!DOCTYPE html>")
        assert service.http.get(path).headers["content-type"] == "application/problem+json"


def test_cancelled_job_goes_on_when_started_again(drawn: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    samples.write(root, people=15, photos=3, groups=0, seed=11)
    with served(copied(drawn, tmp_path / "copy"), roots=(root,)) as service:
        before = service.get("/v1/info")["photos"]
        wanted = {"kind": "index", "folders": [str(root)]}
        first = service.post("/v1/jobs", wanted)["id"]
        while service.get(f"/v1/jobs/{first}")["done"] < 2:
            time.sleep(0.01)
        service.post(f"/v1/jobs/{first}/cancel")
        stopped = ended(service, first)
        assert stopped["state"] == "cancelled"
        assert stopped["done"] < 45
        assert service.get("/v1/info")["photos"] == before + stopped["done"]
        again = ended(service, service.post("/v1/jobs", wanted)["id"])
        assert again["state"] == "done"
        assert again["result"]["unchanged"] == stopped["done"]
        assert service.get("/v1/info")["photos"] == before + 45


def test_events_tell_the_jobs(fresh: Served) -> None:
    job = fresh.post("/v1/jobs", {"kind": "rebuild"})["id"]
    ended(fresh, job)
    with fresh.http.stream("GET", "/v1/events", params={"once": True}) as answer:
        text = answer.read().decode()
    event, data = text.split("\n\n")[0].split("\n")
    assert event == "event: jobs"
    assert [one["id"] for one in json.loads(data.removeprefix("data: "))] == [job]


@contextmanager
def fresh_lock(service: Served) -> Iterator[None]:
    """Write to the gallery of a service, as another process does."""
    with Gallery.open(service.folder / "gallery") as gallery, gallery.write():
        yield


def test_failed_job_says_why(fresh: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("face2vec.server.jobs.WAIT_SECONDS", 0)
    with fresh_lock(fresh):
        job = fresh.post("/v1/jobs", {"kind": "rebuild"})
        done = ended(fresh, job["id"])
    assert done["state"] == "failed"
    assert "being written" in done["error"]


def test_job_that_ends_with_an_unforeseen_error_says_which(
    fresh: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_engine: Face2Vec) -> None:
        raise ZeroDivisionError("a surprise")

    monkeypatch.setattr(Face2Vec, "rebuild", fail)
    job = fresh.post("/v1/jobs", {"kind": "rebuild"})
    fresh.http.headers["Accept-Language"] = "en"
    done = ended(fresh, job["id"])
    assert done["error"] == "an error in face2vec: ZeroDivisionError: a surprise"
    assert done["words"].endswith("which the log of the service has: ZeroDivisionError: a surprise")
    (record,) = [one for one in caplog.records if one.name == "face2vec.server.jobs"]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_index_job_takes_videos_as_well(fresh: Served, drawn: Path) -> None:
    needs("video", "av")
    from video_builder import drawn as drawn_person
    from video_builder import write_video

    root = drawn / "photos" / "videos"
    root.mkdir()
    try:
        write_video(root / "a.mp4", [(drawn_person(3), 1.0)])
        drawn_person(4).save(root / "b.jpg", quality=95)
        for added, unchanged in ((2, 0), (0, 2)):
            job = fresh.post("/v1/jobs", {"kind": "index", "folders": [str(root)]})
            done = ended(fresh, job["id"])
            assert (done["state"], done["error"], done["done"]) == ("done", "", 2)
            assert (done["result"]["added"], done["result"]["unchanged"]) == (added, unchanged)
    finally:
        shutil.rmtree(root)


# Pages, settings and texts


def test_service_without_a_gallery_asks_to_index(tmp_path: Path) -> None:
    samples.write(tmp_path / "photos", people=2, photos=2, groups=0, seed=5)
    with served(tmp_path) as service:
        assert "No photos yet" in service.http.get("/").text
        assert service.nobody.get("/readyz").status_code == 503
        problem(service.http.get("/v1/people"), 404, "gallery-not-found")
        wanted = {"kind": "index", "folders": [str(tmp_path / "photos")]}
        assert ended(service, service.post("/v1/jobs", wanted)["id"])["state"] == "done"
        assert service.nobody.get("/readyz").status_code == 200
        assert service.get("/v1/info")["photos"] == 4


def test_pages_are_in_the_language_of_the_browser(service: Served) -> None:
    for accepted, words in (
        ("de-CH,en;q=0.5", "Personen"),
        ("fr,en;q=0.3", "People"),
        ("", "People"),
    ):
        page = service.http.get("/people", headers={"Accept-Language": accepted})
        assert f"<h1>{words}</h1>" in page.text
    for back, place in (("/people", "/people"), ("//evil.example", "/evil.example")):
        answer = service.http.get("/language/de", params={"back": back})
        assert answer.headers["location"] == place
    chosen = answer.headers["set-cookie"].partition(";")[0]
    assert "<h1>Personen</h1>" in service.http.get("/people", headers={"Cookie": chosen}).text
    service.http.cookies.clear()


def test_texts_of_each_language_fit_the_english_ones() -> None:
    import string

    def parts(text: str) -> set[str | None]:
        return {name for _, name, _, _ in string.Formatter().parse(text)} - {None}

    english = texts.catalogue("en")
    for language in texts.languages():
        own = json.loads((texts.FOLDER / f"{language}.json").read_text("utf-8"))
        own = {key: text for key, text in own.items() if not key.startswith("route.")}
        assert set(own) <= set(english)
        for key, text in own.items():
            assert parts(text) == parts(english[key]), (language, key)


def test_metrics_count_requests(service: Served) -> None:
    service.get("/v1/info")
    text = service.http.get("/metrics").text
    assert 'face2vec_requests_total{route="/v1/info",status="200"}' in text
    assert "face2vec_faces " in text


@pytest.mark.parametrize("token", ["short", "é" * 20])
def test_settings_refuse_weak_tokens(tmp_path: Path, token: str) -> None:
    with pytest.raises(SettingsError, match="at least 16 ASCII characters"):
        Settings(tmp_path, token=token)


def test_token_file_of_others_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    assert token_from(file) == TOKEN
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        token_from(file)
    assert token_from(None, {"FACE2VEC_TOKEN": READ_TOKEN}) == READ_TOKEN
    assert token_from(None, {}) is None


# Faces marked by hand


def test_missed_face_is_marked_by_hand_and_found(fresh: Served, tmp_path: Path) -> None:
    number, box = add_missed(fresh, tmp_path)
    assert fresh.get(f"/v1/photos/{number}")["status"] == "no-face"
    made = fresh.post(f"/v1/photos/{number}/faces", json={"box": box})
    assert made["mark"] is None
    found = fresh.get(f"/v1/photos/{number}")
    assert (found["status"], found["marks"]) == ("indexed", [])
    assert [one["id"] for one in found["face_list"]] == [made["face"]]
    face = people_of(fresh)["Ada"]["cover"]
    (result,) = fresh.post("/v1/search", {"queries": [{"face": face}], "k": 5})["results"]
    assert made["face"] in [match["face"] for match in result["matches"]]
    problem(fresh.http.post(f"/v1/photos/{number}/faces", json={"box": box}), 422, "gallery")
    assert fresh.post("/v1/edits/undo")["what"] == f"marking of face {made['face']} by hand"
    assert fresh.get(f"/v1/photos/{number}")["status"] == "no-face"


def test_mark_without_landmarks_is_named_and_deleted(fresh: Served, tmp_path: Path) -> None:
    number, _ = add_missed(fresh, tmp_path)
    box = [0, 0, 12, 12]
    before = fresh.get("/v1/info")["faces"]
    made = fresh.post(f"/v1/photos/{number}/faces", json={"box": box})
    assert made["face"] is None
    mark = f"/v1/marks/{made['mark']}"
    assert fresh.get(f"/v1/photos/{number}")["marks"] == [
        {"id": made["mark"], "box": box, "person": None, "name": None}
    ]
    assert Image.open(io.BytesIO(fresh.http.get(f"{mark}/thumbnail").content)).size == (192, 192)
    ada = people_of(fresh)["Ada"]
    named = fresh.http.patch(mark, json={"name": "Ada"}).json()
    assert (named["person"], named["name"]) == (ada["id"], "Ada")
    shown = fresh.get("/v1/photos", params={"person": ada["id"]})["photos"]
    assert number in [photo["id"] for photo in shown]
    assert f'src="{mark}/thumbnail' in fresh.http.get(f"/people/{ada['id']}").text
    assert f'src="{mark}/thumbnail' in fresh.http.get(f"/photos/{number}").text
    assert people_of(fresh)["Ada"] == ada
    assert fresh.get("/v1/info")["faces"] == before
    assert fresh.http.patch(mark, json={"name": None}).json()["person"] is None
    assert fresh.http.delete(mark).json()["faces"] == 1
    problem(fresh.http.get(f"{mark}/thumbnail"), 404, "not-found")
    problem(fresh.http.patch(mark, json={"name": "Ada"}), 404, "not-found")
    problem(fresh.http.delete(mark), 404, "not-found")
    fresh.post("/v1/edits/undo")
    assert fresh.get(f"/v1/photos/{number}")["marks"] != []


def test_forgetting_a_person_deletes_the_thumbnails_of_marks(fresh: Served, tmp_path: Path) -> None:
    number, _ = add_missed(fresh, tmp_path)
    made = fresh.post(f"/v1/photos/{number}/faces", json={"box": [0, 0, 12, 12]})
    mark = f"/v1/marks/{made['mark']}"
    named = fresh.http.patch(mark, json={"name": "Zoe"}).json()
    assert fresh.http.get(f"{mark}/thumbnail").status_code == 200
    done = fresh.http.delete(f"/v1/people/{named['person']}").json()
    assert (done["faces"], done["photos"], done["left"]) == (1, 1, [])
    problem(fresh.http.get(f"{mark}/thumbnail"), 404, "not-found")
    assert not list((fresh.folder / "gallery" / FOLDER).glob("*/mark-*"))


@pytest.mark.parametrize(
    "box",
    [[0, 0, 4, 4], [0, 0, 9999, 20], [30, 0, 10, 20], [1, 2, 3], ["a", 0, 9, 9], [-9, 0, 9, 9]],
)
def test_wrong_boxes_are_refused(fresh: Served, box: list[Any]) -> None:
    answer = fresh.http.post("/v1/photos/1/faces", json={"box": box})
    assert answer.status_code == 422, answer.text


def test_marks_need_the_token_that_writes(service: Served) -> None:
    body = {"box": [0, 0, 20, 20]}
    problem(service.reader.post("/v1/photos/1/faces", json=body), 403, "read-only")
    problem(service.http.post("/v1/photos/999999/faces", json=body), 404, "not-found")
    problem(service.reader.patch("/v1/marks/1", json={"name": "x"}), 403, "read-only")
    problem(service.http.get("/v1/marks/1/thumbnail?side=7"), 422, "settings")


# Photos by date


@pytest.fixture
def dated(fresh: Served, tmp_path: Path) -> Served:
    """The service with two dated photos of person 0, of May 2024 and January 2023."""
    for name, day in (("may", "2024:05:01 12:00:00"), ("january", "2023:01:31 23:00:00")):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = day
        person = samples.people(1, seed=3)[0]
        image = Image.open(io.BytesIO(person.photo(len(name)).jpeg()))
        image.save(tmp_path / f"{name}.jpg", exif=exif)
    with Face2Vec(fresh.folder / "gallery") as engine:
        assert engine.add(tmp_path / "may.jpg", tmp_path / "january.jpg").faces == 2
    return fresh


def test_photos_are_listed_by_date(dated: Served) -> None:
    def names(**values: str) -> list[str]:
        return [Path(one["path"]).stem for one in dated.get("/v1/photos", params=values)["photos"]]

    assert names(**{"from": "2023"}) == ["january", "may"]
    assert names(**{"from": "2023-01-31", "to": "2023"}) == ["january"]
    assert names(**{"from": "2024-06"}) == []
    assert names(order="date")[:2] == ["may", "january"]
    photos = dated.get("/v1/photos", params={"from": "2024"})
    assert (photos["total"], photos["photos"][0]["taken"]) == (1, "2024-05-01T12:00:00")
    months = dated.get("/v1/photos/months")["months"]
    assert months[:2] == [{"month": "2024-05", "photos": 1}, {"month": "2023-01", "photos": 1}]
    assert months[2]["month"] == ""
    words = problem(dated.http.get("/v1/photos?from=May"), 422, "settings")
    assert "from must be a year, month or day" in words


def test_search_is_limited_to_a_period(dated: Served) -> None:
    face = people_of(dated)["Ada"]["cover"]
    for limits, count in (({"from": "2024-05", "to": "2024-05"}, 1), ({"from": "2023"}, 2)):
        body = {"queries": [{"face": face}], **limits}
        (result,) = dated.post("/v1/search", body)["results"]
        assert len(result["matches"]) == count
        assert result["matches"][0]["path"].endswith(("may.jpg", "january.jpg"))
    problem(
        dated.http.post("/v1/search", json={"queries": [{"face": face}], "to": "soon"}),
        422,
        "settings",
    )


def test_photos_page_groups_by_month(dated: Served) -> None:
    page = dated.http.get("/photos?order=date").text
    assert page.index("<h2>May 2024</h2>") < page.index("<h2>January 2023</h2>")
    assert page.index("<h2>January 2023</h2>") < page.index("<h2>No date</h2>")
    page = dated.http.get("/photos?month=2024", headers={"Accept-Language": "de"}).text
    assert "<h2>Mai 2024</h2>" in page
    assert "1 Foto<" in page
    assert dated.http.get("/photos?month=x&order=y").status_code == 200


def test_index_job_reads_dates_of_photos_that_are_there(fresh: Served, drawn: Path) -> None:
    folder = str((drawn / "photos" / "person-000").resolve())
    job = fresh.post("/v1/jobs", {"kind": "index", "folders": [folder], "again": True})
    while (found := fresh.get(f"/v1/jobs/{job['id']}"))["state"] in ("waiting", "running"):
        time.sleep(0.1)
    assert (found["state"], found["result"]["unchanged"]) == ("done", 3)


# What has changed


@pytest.mark.parametrize(
    ("what", "english", "german"),
    [
        ("name 'Ada' of person 3", "named person 3 Ada", "Person 3 benannt: Ada"),
        ('name "O\'Hara" of person 3', "named person 3 O'Hara", "Person 3 benannt: O'Hara"),
        (
            "removal of the name 'A of person 3' from person 3",
            "removed the name A of person 3 from person 3",
            "Name A of person 3 von Person 3 entfernt",
        ),
        (
            "merge of person 4 (unnamed), Bob (person 5) into Ada (person 3)",
            "merged person 4, Bob into Ada",
            "Person 4, Bob mit Ada zusammengeführt",
        ),
        (
            "split of face 7 from Ada (person 3)",
            "split face 7 from Ada",
            "Gesicht 7 von Ada abgetrennt",
        ),
        (
            "assignment of 4 faces to person 9",
            "assigned 4 faces to person 9",
            "4 Gesichter zugeordnet: Person 9",
        ),
        ("enrolment of 4 faces as 'Anna'", "named 4 faces Anna", "4 Gesichter benannt: Anna"),
        (
            "enrolment of 9 faces as 2 people",
            "named 9 faces as 2 people",
            "9 Gesichter als 2 Personen benannt",
        ),
        (
            "statement that Ada (person 1) and face 3 are different people",
            "Ada and face 3 are different people",
            "Ada und Gesicht 3 sind verschiedene Personen",
        ),
        (
            "ignoring of 2 faces; to have face 6 back, remove the photo and index it again",
            "ignored 2 faces; to have face 6 back, remove the photo and index it again",
            "2 Gesichter: kein Gesicht; um Gesicht 6 wiederzubekommen, entfernen Sie das Foto und "
            "indizieren Sie es neu",
        ),
        ("statement that mark 2 is 'Bob'", "named mark 2 Bob", "Markierung 2 benannt: Bob"),
        (
            "something of a later version",
            "something of a later version",
            "something of a later version",
        ),
    ],
)
def test_edits_are_described_in_the_language_of_the_reader(
    what: str, english: str, german: str
) -> None:
    assert described(what, texts.text_of("en")) == english
    assert described(what, texts.text_of("de")) == german


def test_every_edit_of_the_gallery_has_words_in_every_language(
    fresh: Served, tmp_path: Path
) -> None:
    """Each kind of edit once: none is shown in the words of the gallery."""
    number, box = add_missed(fresh, tmp_path)
    known = people_of(fresh)
    ada, bob = known["Ada"]["id"], known["Bob"]["id"]
    first, second, third, *_ = fresh.get(f"/v1/people/{ada}")["face_ids"]
    with Face2Vec(fresh.folder / "gallery") as engine:
        engine.enroll(
            {"Zoe": [fresh.photo("person-005/0.jpg")], "Kim": [fresh.photo("person-006/0.jpg")]}
        )
        engine.hide(ada)
        engine.hide(ada, False)
        engine.choose_cover(ada, second)
        engine.not_this_person(ada, first)
        engine.this_person(ada, first)
        engine.this_person(None, first)
        new = engine.split(ada, third)
        engine.merge(new, engine.this_person(None, first))
        engine.name(new, "Eve")
        engine.name(new, None)
        engine.different(second, engine.person(bob).faces[0])
        engine.answer(engine.suggest(1)[0], same=False)
        engine.ignore(second)
        engine.mark_face(tmp_path / "missed.png", box)
        mark = engine.mark_face(tmp_path / "missed.png", (0, 0, 9, 9)).mark
        engine.name_mark(mark, "Mia")
        engine.name_mark(mark, None)
        engine.unmark(mark)
        made = [edit.what for edit in engine.edits()]
    assert len({what.split()[0] for what in made}) >= 12
    for language in texts.languages():
        answered = fresh.get("/v1/edits", params={"language": language})["edits"]
        assert [one["what"] for one in answered] == made
        assert [one["what"] for one in answered if one["words"] == one["what"]] == []
        page = fresh.http.get("/edits", headers={"Accept-Language": language}).text
        assert all(html.escape(one["words"]).replace("&#x27;", "&#39;") in page for one in answered)
    assert fresh.get("/v1/edits")["edits"][0]["words"] is None
    undone = fresh.post("/v1/edits/undo?language=de")
    assert (undone["what"], undone["words"]) == (made[0], "Markierung 1 gelöscht")
    assert number > 0


def test_version_changes_with_every_change_and_with_nothing_else(fresh: Served) -> None:
    def version() -> str:
        text = fresh.http.get("/v1/events?once=true").text
        return str(json.loads(text.split("event: gallery\ndata: ")[1].splitlines()[0]))

    before = version()
    assert fresh.get("/v1/info")["faces"]
    fresh.http.get("/people")
    assert version() == before
    ada = people_of(fresh)["Ada"]["id"]
    answer = fresh.http.patch(f"/v1/people/{ada}", json={"hidden": True})
    assert answer.headers["face2vec-version"] == version() != before
    seen = {before, version()}
    with Face2Vec(fresh.folder / "gallery") as engine:
        engine.undo()
        seen.add(version())
        engine.find_people(again=True)
        seen.add(version())
        engine.remove(fresh.photo("person-002/0.jpg").resolve())
        seen.add(version())
    assert len(seen) == 5
    job = fresh.post("/v1/jobs", {"kind": "people"})
    while fresh.get(f"/v1/jobs/{job['id']}")["state"] in ("waiting", "running"):
        time.sleep(0.05)
    assert version() not in seen


def test_problems_reasons_and_jobs_are_said_in_the_language_of_the_reader(fresh: Served) -> None:
    german = {"Accept-Language": "de"}
    path = "/v1/people/999999"
    answer = fresh.http.get(path, headers=german)
    assert problem(answer, 404, "not-found") == "there is no person 999999 in the gallery"
    assert answer.json()["code"] == "no-person"
    assert answer.json()["words"].startswith("Die Person 999999 ist nicht in der Galerie.")
    assert "words" not in fresh.http.get(path).json()
    chosen = {"Accept-Language": "en", "Cookie": "face2vec_language=de"}
    assert fresh.http.get(path, headers=chosen).json()["words"] == answer.json()["words"]
    page = fresh.http.get("/people/999999", headers=german | {"Accept": "text/html"})
    assert (page.status_code, "Die Person 999999 ist nicht" in page.text) == (404, True)
    bad = fresh.http.post(
        "/v1/encode", files=upload(b"\xff\xd8\xff\xe0 cut"), headers=german
    ).json()
    assert bad["words"] == "who.jpg: abgeschnitten"
    assert bad["detail"].startswith("who.jpg: truncated")
    name = {"name": "Ada\u202eX"}
    ada = people_of(fresh)["Ada"]["id"]
    hidden = fresh.http.patch(f"/v1/people/{ada}", json=name, headers=german).json()
    assert hidden["words"].startswith("Dieser Name enthält Zeichen")
    outside = fresh.http.post("/v1/jobs", json={"kind": "index", "folders": ["/"]}, headers=german)
    assert "--root" in outside.json()["words"]


def test_several_faces_are_ignored_in_one_edit(fresh: Served) -> None:
    before = fresh.get("/v1/people", params={"name": "Ada", "with_faces": True})["people"][0]
    first, second, *rest = before["face_ids"]
    done = fresh.post("/v1/faces/ignore", {"faces": [first, second]})
    assert done["faces"] == 2
    assert people_of(fresh)["Ada"]["faces"] == len(rest)
    assert fresh.get("/v1/edits")["edits"][0]["what"] == "ignoring of 2 faces"
    fresh.post("/v1/edits/undo")
    assert people_of(fresh)["Ada"]["faces"] == before["faces"]
    gone = fresh.http.post("/v1/faces/ignore", json={"faces": [first, 999999]})
    problem(gone, 422, "gallery")
    assert people_of(fresh)["Ada"]["faces"] == before["faces"]
    with Client(fresh.address) as client:
        client.ignore(first, second)
        assert client.undo() == "ignoring of 2 faces"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/photos?folder=a%00b", None),
        ("GET", "/v1/folders?path=%00", None),
        ("POST", "/v1/jobs", {"kind": "index", "folders": ["a\0b"]}),
        ("POST", "/v1/jobs", {"kind": "upgrade", "model": "a\0b"}),
        ("POST", "/v1/search", {"queries": [{"face": 1}], "folder": "a\0b"}),
        ("PATCH", "/v1/people/1", {"name": "a\0b"}),
        ("GET", "/v1/people?name=%00", None),
        ("GET", "/photos?folder=%00&person=%00&month=%00", None),
    ],
)
def test_nul_character_is_no_error_of_the_service(
    method: str, path: str, body: Any, fresh: Served
) -> None:
    assert fresh.http.request(method, path, json=body).status_code < 500


def test_uploaded_photo_may_be_called_anything(fresh: Served, query: bytes) -> None:
    for name in ("a\0b.jpg", "../../a.jpg", ""):
        answer = fresh.http.post("/v1/detect", files={"photo": (name or "x", query)})
        assert answer.status_code < 500


def test_full_disk_is_507_with_words(fresh: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("face2vec.gallery.people.PeopleWriter.name", full)
    ada = people_of(fresh)["Ada"]["id"]
    german = {"Accept-Language": "de"}
    answer = fresh.http.patch(f"/v1/people/{ada}", json={"name": "Eve"}, headers=german)
    assert "the disk is full" in problem(answer, 507, "not-written")
    assert answer.json()["words"].startswith("Der Datenträger ist voll.")
    monkeypatch.setattr("face2vec.engine.Face2Vec.find_people", full)
    job = fresh.post("/v1/jobs", {"kind": "people"})
    while (found := fresh.get(f"/v1/jobs/{job['id']}", headers=german))["state"] != "failed":
        time.sleep(0.02)
    assert found["words"].startswith("Der Datenträger ist voll.")
    assert "the disk is full" in found["error"]


def test_photo_that_cannot_be_read_has_its_reason_in_german(fresh: Served) -> None:
    broken = fresh.photo("broken.jpg")
    broken.write_bytes(b"\xff\xd8\xff\xe0 cut")
    with Face2Vec(fresh.folder / "gallery") as engine:
        engine.add(broken)
    for language, words in (("en", "unreadable: truncated"), ("de", "unlesbar: abgeschnitten")):
        page = fresh.http.get("/photos?status=unreadable", headers={"Accept-Language": language})
        assert words in page.text
    (found,) = fresh.get("/v1/photos?status=unreadable")["photos"]
    assert found["reason"] == "truncated"


def test_match_says_in_german_why_it_is_less_certain(fresh: Served) -> None:
    small = Image.open(fresh.photo("person-000/0.jpg"))
    small.thumbnail((36, 36))
    data = io.BytesIO()
    small.save(data, "PNG")
    found = fresh.http.post(
        "/v1/search/photo", files=upload(data.getvalue()), headers={"Accept-Language": "de"}
    ).json()
    matches = [one for result in found["results"] for one in result["matches"]]
    (english,), (reason,) = matches[0]["outside"], matches[0]["reasons"]
    pixels = reason["values"]["pixels"]
    assert english == f"one crop has only {pixels} pixels"
    assert reason["words"] == f"ein Ausschnitt hat nur {pixels} Pixel"
    assert reason["code"] == "few-pixels"


def test_undo_of_an_expected_edit_refuses_another(fresh: Served) -> None:
    (shown,) = fresh.get("/v1/edits", params={"limit": 1})["edits"]
    expected = {"what": shown["what"], "made": shown["made"]}
    with Face2Vec(fresh.folder / "gallery") as engine:
        engine.name("Ada", "Ada Lovelace")
    (last,) = fresh.get("/v1/edits", params={"limit": 1, "language": "de"})["edits"]
    page = fresh.http.get("/people").text
    assert json.dumps({"what": last["what"], "made": last["made"]}) in html.unescape(page)
    version = fresh.http.get("/v1/events?once=true").text
    answer = fresh.http.post("/v1/edits/undo?language=de", json=expected)
    words = problem(answer, 409, "other-edit")
    assert "nothing was undone" in words
    assert last["what"] in words
    assert answer.json()["last"] == last
    assert fresh.http.get("/v1/events?once=true").text == version
    assert "Ada Lovelace" in people_of(fresh)
    same_words = {"what": last["what"], "made": last["made"] - 1}
    problem(fresh.http.post("/v1/edits/undo", json=same_words), 409, "other-edit")
    expected = {"what": last["what"], "made": last["made"]}
    assert fresh.post("/v1/edits/undo", expected)["what"] == last["what"]
    assert "Ada" in people_of(fresh)
    fresh.post("/v1/edits/undo")
    while fresh.http.post("/v1/edits/undo").is_success:
        pass
    answer = fresh.http.post("/v1/edits/undo", json=expected)
    assert "there is no edit" in problem(answer, 409, "other-edit")
    assert answer.json()["last"] is None


def test_undo_button_names_the_last_edit(fresh: Served) -> None:
    page = fresh.http.get("/people", headers={"Accept-Language": "de"}).text
    assert "<bdi>Rückgängig: 6 Gesichter als 2 Personen benannt</bdi>" in page
    while fresh.http.post("/v1/edits/undo").is_success:
        pass
    assert "There is nothing to undo" in fresh.http.get("/people").text
    assert 'id="undo"' not in fresh.reader.get("/people").text


# Folders to index


def test_folders_are_browsed_below_the_roots_only(fresh: Served, tmp_path: Path) -> None:
    root = fresh.folder.resolve()  # that of a second service, with links out of it
    place = tmp_path / "browse"
    for name in ("b", "A/inner", ".hidden"):
        (place / name).mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (place / "out").symlink_to(tmp_path / "outside")
    (place / "in").symlink_to(place / "A" / "inner")
    (place / "loop").symlink_to(place)
    (place / "one.JPG").touch()
    (place / "notes.txt").touch()
    with served(fresh.folder, roots=(place.resolve(),)) as one:
        roots = one.get("/v1/folders")
        assert (roots["path"], roots["parent"], roots["photos"]) == (None, None, 0)
        assert roots["folders"] == [{"name": str(place), "path": str(place)}]
        found = one.get("/v1/folders", params={"path": str(place)})
        assert [(two["name"], two["path"]) for two in found["folders"]] == [
            ("A", str(place / "A")),
            ("b", str(place / "b")),
            ("in", str(place / "A" / "inner")),
            ("loop", str(place)),
        ]
        assert (found["path"], found["parent"], found["photos"]) == (str(place), None, 1)
        inner = one.get("/v1/folders", params={"path": str(place / "in")})
        assert (inner["path"], inner["parent"]) == (str(place / "A" / "inner"), str(place / "A"))
        for outside in (tmp_path, place / "out", place / "..", "/etc", root, "\0"):
            answer = one.http.get("/v1/folders", params={"path": str(outside)})
            problem(answer, 403, "outside-roots")
        problem(one.reader.get("/v1/folders"), 403, "read-only")


# Two who write


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """The right to write to a gallery, as another process has it."""
    with Gallery.open(folder / "gallery") as gallery, gallery.write():
        yield


def test_edit_waits_for_another_writer(fresh: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = people_of(fresh)["Ada"]["id"]
    answers = []
    with writing(fresh.folder):
        body = {"name": "Ada Lovelace"}
        thread = threading.Thread(
            target=lambda: answers.append(fresh.http.patch(f"/v1/people/{ada}", json=body))
        )
        thread.start()
        time.sleep(1)
        assert answers == []
    thread.join()
    assert answers[0].json()["name"] == "Ada Lovelace"
    monkeypatch.setattr("face2vec.server.service.EDIT_SECONDS", 0.2)
    with writing(fresh.folder):
        answer = fresh.http.patch(f"/v1/people/{ada}", json={"name": "Bea"})
    assert problem(answer, 409, "gallery-locked").startswith("nothing was changed: ")
    assert people_of(fresh).keys() >= {"Ada Lovelace"}


def test_edit_names_the_job_that_writes(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("face2vec.server.service.EDIT_SECONDS", 0.2)
    place, go_on = copied(drawn, tmp_path), threading.Event()
    with contextlib.closing(Service(Settings(place / "gallery"))) as service:
        job = service.jobs.start("people", "", lambda _: {"done": go_on.wait(60)})
        while service.jobs.running is None:
            time.sleep(0.01)
        with (
            writing(place),
            pytest.raises(GalleryLockedError, match=rf"the job {job.id} \(people\) is writing"),
        ):
            service.edit(lambda engine: engine.name("Ada", "Bea"))
        go_on.set()


@pytest.mark.parametrize("kind", ["people", "rebuild", "index"])
def test_job_waits_for_another_writer_and_says_so(fresh: Served, drawn: Path, kind: str) -> None:
    folders = [str((drawn / "photos" / "person-000").resolve())] if kind == "index" else []
    with writing(fresh.folder):
        job = fresh.post("/v1/jobs", {"kind": kind, "folders": folders})["id"]
        while not (found := fresh.get(f"/v1/jobs/{job}"))["waits_for"]:
            assert found["state"] in ("waiting", "running")
            time.sleep(0.05)
        assert f"is being written by process {os.getpid()}" in found["waits_for"]
        assert fresh.reader.get(f"/v1/jobs/{job}").json()["waits_for"] == "another process"
    found = ended(fresh, job)
    assert (found["state"], found["error"], found["waits_for"]) == ("done", "", "")


def test_job_that_waits_is_cancelled_or_fails_in_the_end(
    fresh: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(fresh.folder):
        job = fresh.post("/v1/jobs", {"kind": "people"})["id"]
        while not fresh.get(f"/v1/jobs/{job}")["waits_for"]:
            time.sleep(0.05)
        fresh.post(f"/v1/jobs/{job}/cancel")
        assert ended(fresh, job)["state"] == "cancelled"
        monkeypatch.setattr("face2vec.server.jobs.WAIT_SECONDS", 0)
        job = fresh.post("/v1/jobs", {"kind": "people"})["id"]
        found = ended(fresh, job)
        assert found["state"] == "failed"
        assert "writ" in found["error"]


# How it ends, and what is slow


@pytest.mark.parametrize(
    "sent", [b"", b"GET /hea", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ", None]
)
def test_headers_must_arrive_in_time(drawn: Path, tmp_path: Path, sent: bytes | None) -> None:
    with served(copied(drawn, tmp_path), limits=Limits(header_seconds=0.5)) as one:
        host, _, port = one.base.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), 30) as slow:
            if sent is None:  # a whole request, and then a slow one
                slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert slow.recv(4096).startswith(b"HTTP/1.1 200")
                sent = b"GET /hea"
            slow.sendall(sent)
            got = b""
            while data := slow.recv(4096):  # until the service ends the connection
                got += data
        assert (b"HTTP/1.1 408" in got) == bool(sent)
        assert one.nobody.get("/healthz").text == "ok"


def test_requests_whose_headers_come_in_pieces_are_answered(drawn: Path, tmp_path: Path) -> None:
    with served(copied(drawn, tmp_path), limits=Limits(header_seconds=20)) as one:
        host, _, port = one.base.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), 30) as slow:
            for piece in (b"GET /hea", b"lthz HTTP/1.1\r\nHo", b"st: x\r\n\r\n"):
                slow.sendall(piece)
                time.sleep(0.05)
            assert slow.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_service_and_leaves_nothing_behind(
    drawn: Path, tmp_path: Path, query: bytes, how: signal.Signals
) -> None:
    place = copied(drawn, tmp_path)
    command = [sys.executable, "-m", "face2vec", "serve", str(place / "gallery"), "--no-browser"]
    environment = {**os.environ, "FACE2VEC_TOKEN": TOKEN}
    with Started(
        [*command, "--port", "0"], env=environment, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stderr is not None
        address = process.stderr.readline().strip()
        with Client(address) as client:  # so that processes decode
            (tmp_path / "who.jpg").write_bytes(query)
            assert client.encode(tmp_path / "who.jpg")
        process.send_signal(how)
        _, words = process.communicate(timeout=60)
    assert process.returncode == 128 + how
    assert "leaked" not in words
    assert "Traceback" not in words


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("how", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_signal_whose_exception_python_drops_ends_the_service_all_the_same(
    how: signal.Signals, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asks:
        def __del__(self) -> None:
            os.kill(os.getpid(), how)

    dropped: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda one: dropped.append(one.exc_type))
    before = signal.getsignal(how)
    try:
        with _ended_by_signals() as end_if_asked:
            end_if_asked()
            Asks()
            assert dropped == [error]
            with pytest.raises(error) as ended_with:
                end_if_asked()
    finally:
        signal.signal(how, before)
    if isinstance(ended_with.value, SystemExit):
        assert ended_with.value.code == 128 + signal.SIGTERM


def test_server_that_does_not_start_is_told(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def startup(server: uvicorn.Server, *_: object) -> None:
        server.should_exit = True

    monkeypatch.setattr(uvicorn.Server, "startup", startup)
    with pytest.raises(Face2VecError, match="ended before it answered"), served(drawn):
        pass
    result = CliRunner().invoke(
        main, ["serve", str(drawn / "gallery"), "--port", "0", "--no-browser"]
    )
    assert (result.exit_code, result.stdout) == (3, "")
    assert "the service ended before it answered" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("built", [False, True])
def test_signals_while_the_demo_is_made_leave_nothing_behind(
    tmp_path: Path, how: signal.Signals, built: bool
) -> None:
    command = [sys.executable, "-m", "face2vec", "serve", "--demo", "--no-browser", "--port", "0"]
    with Started(
        command,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("drawing")
        assert list(tmp_path.glob("face2vec-demo-*"))
        if built:
            assert process.stderr.readline().startswith("building")
            while not list(tmp_path.glob("*/demo/gallery/gallery.sqlite")):
                assert process.poll() is None
                time.sleep(0.05)
        process.send_signal(how)
        if how == signal.SIGTERM:  # an impatient one
            time.sleep(0.1)
            process.send_signal(how)
        _, words = process.communicate(timeout=60)
    assert process.returncode == 128 + how
    assert "http" not in words
    assert not list(tmp_path.glob("face2vec-demo-*"))


def test_log_of_edits_has_no_names_unless_they_are_wanted(
    drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for log_names in (False, True):
        caplog.clear()
        place = copied(drawn, tmp_path / str(log_names))
        with caplog.at_level("INFO", "face2vec.audit"), served(place, log_names=log_names) as one:
            known = people_of(one)
            ada = known["Ada"]
            one.http.patch(f"/v1/people/{ada['id']}", json={"name": "Hedwig Nobody"})
            one.post("/v1/people", {"faces": [ada["cover"]], "name": "Hedwig Nobody"})
            asked = one.get("/v1/suggestions")["suggestions"][0]
            sides = {name: asked[name] for name in ("first", "second")}
            sides["first"]["name"] = "Hedwig Nobody"
            one.post("/v1/suggestions/answer", sides | {"same": False})
            for _ in range(3):
                one.post("/v1/edits/undo")
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == 6
        assert any("Hedwig Nobody" in line for line in lines) == log_names
        assert [line.split()[1] for line in lines][:2] == ["name", "faces"]
