"""`Client` gives what `Face2Vec` gives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from serving import TOKEN, Served, add_missed, copied, served

from face2vec import Client, Face2Vec, samples
from face2vec.cli.main import main
from face2vec.errors import (
    GalleryError,
    NoFaceError,
    OtherEditError,
    PhotoError,
    ServiceError,
    SettingsError,
)
from face2vec.types import Edit, Mark, Marked


@pytest.fixture(scope="module")
def drawn(drawn_service: Path) -> Path:
    return drawn_service


@pytest.fixture(scope="module")
def service(drawn: Path) -> Iterator[Served]:
    with served(drawn) as one:
        yield one


@pytest.fixture(scope="module")
def client(service: Served) -> Iterator[Client]:
    with Client(service.address) as one:
        yield one


@pytest.fixture(scope="module")
def engine(drawn: Path) -> Iterator[Face2Vec]:
    with Face2Vec(drawn / "gallery") as one:
        yield one


@pytest.fixture
def who(tmp_path: Path) -> Path:
    samples.people(1, seed=3)[0].photo(99).save(tmp_path / "who.jpg")
    return tmp_path / "who.jpg"


def test_client_encodes_as_the_engine(client: Client, engine: Face2Vec, who: Path) -> None:
    (face,), (known,) = client.encode(who), engine.encode(who)
    np.testing.assert_allclose(face.embedding, known.embedding, atol=1e-5)
    np.testing.assert_allclose(face.landmarks, known.landmarks, atol=1e-3)
    assert (face.confidence, face.model) == (pytest.approx(known.confidence), known.model)
    assert face.parts == known.parts


def test_client_searches_as_the_engine(
    client: Client, engine: Face2Vec, service: Served, who: Path
) -> None:
    group = service.photo("groups/0.jpg")
    for query in (who, who.read_bytes(), group, [who, service.photo("person-000/0.jpg")]):
        found, known = client.search(query, 4), engine.search(query, 4)
        assert [one.photo for one in found] == [one.photo for one in known]
        for one, other in zip(found, known, strict=True):
            assert [m.face.id for m in one.matches] == [m.face.id for m in other.matches]
            assert [m.photo for m in one.matches] == [m.photo for m in other.matches]
            assert one.matches[0].face.box == other.matches[0].face.box
    face = client.search(who, 1)[0].matches[0].face
    again = client.search(face, 3)
    assert face.id not in [match.face.id for match in again[0].matches]
    assert client.search(who, 5, min_similarity=0.999)[0].matches.to_dicts() == []


def test_client_verifies_and_identifies_as_the_engine(
    client: Client, engine: Face2Vec, service: Served, who: Path
) -> None:
    for other in ("person-000/0.jpg", "person-001/0.jpg"):
        found, known = (one.verify(who, service.photo(other)) for one in (client, engine))
        assert found.same == known.same
        assert found.probability == pytest.approx(float(known.probability), abs=1e-4)
        assert found.distance == pytest.approx(float(known.distance), abs=1e-4)
    (found_one,), (known_one,) = client.identify(who), engine.identify(who)
    assert found_one.label == known_one.label == "Ada"
    assert found_one.probability == pytest.approx(known_one.probability, abs=1e-4)


def test_client_edits_people(drawn: Path, tmp_path: Path) -> None:
    with served(copied(drawn, tmp_path)) as service, Client(service.address) as client:
        ada, bob = client.person("Ada"), client.person("Bob")
        everyone = client.people()
        assert [one.name for one in everyone[:2]] == ["Ada", "Bob"]
        assert everyone[0] == ada
        assert client.hide(ada).hidden
        assert "Ada" not in [one.name for one in client.people()]
        assert not client.hide(ada, False).hidden
        assert client.choose_cover(ada, ada.faces[-1]).cover == ada.faces[-1]
        assert all(one.hidden for one in client.hide_people(["Ada", bob]))
        assert client.undo() == "hiding of 2 people"
        assert [one.name for one in client.people()[:2]] == ["Ada", "Bob"]
        eve = client.this_person(None, ada.faces[0], name="Eve")
        assert (eve.name, eve.faces) == ("Eve", ada.faces[:1])
        assert client.merge(ada, eve, keep_name=True) == client.person(ada.id)
        assert client.person("Ada").faces == ada.faces
        for _ in range(2):
            client.undo()
        new = client.split(ada, ada.faces[0])
        assert new.faces == ada.faces[:1]
        assert client.name(new, "Eve", was=None).name == "Eve"
        with pytest.raises(GalleryError, match="has the name 'Eve' now"):
            client.name(new, "Fay", was=None)
        with pytest.raises(GalleryError, match="different names"):
            client.merge(bob, new)
        (last,) = client.edits(1)
        client.hide(bob)
        with pytest.raises(OtherEditError, match="the last edit is now: hiding of Bob") as raised:
            client.undo(last)
        assert [Edit(raised.value.what or "", raised.value.made)] == client.edits(1)
        assert client.undo(client.edits(1)[0]) == f"hiding of Bob (person {bob.id})"
        assert client.undo() == last.what
        assert client.merge(client.person(ada.id), client.person(new.id)).faces == ada.faces
        assert client.not_this_person(ada, ada.faces[0]).faces == ada.faces[1:]
        assert client.this_person("Ada", ada.faces[0]).faces == ada.faces
        suggestion = next(one for one in client.suggest() if one.first.person and one.second.person)
        assert client.answer(suggestion, False) is None
        assert suggestion not in client.suggest()
        client.ignore(bob.faces[0])
        assert client.person("Bob").faces == bob.faces[1:]
        gone = client.forget("Ada")
        assert (gone.faces, gone.left) == (len(ada.faces), ())
        with pytest.raises(GalleryError, match="no person 'Ada'"):
            client.person("Ada")


def test_client_raises_the_errors_of_the_engine(client: Client, tmp_path: Path, who: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    with pytest.raises(PhotoError) as raised:
        client.search(tmp_path / "broken.jpg")
    assert raised.value.photo == str(tmp_path / "broken.jpg")
    with pytest.raises(PhotoError, match=r"missing\.jpg: missing"):
        client.search(tmp_path / "missing.jpg")
    with pytest.raises(PhotoError, match="not a regular file"):
        client.search(tmp_path)
    with pytest.raises(SettingsError, match="k"):
        client.search(who, 0)
    with pytest.raises(SettingsError, match="takes 256"):
        client.identify(client.encode(who)[0].with_embedding(np.ones(3, np.float32)))
    with pytest.raises(GalleryError, match="face 999999 is not in the gallery"):
        client.ignore(999_999)
    blank = tmp_path / "blank.png"
    samples_blank = np.zeros((64, 64, 3), np.uint8)
    from PIL import Image

    Image.fromarray(samples_blank).save(blank)
    assert client.search(blank) == []
    with pytest.raises(NoFaceError):
        client.verify(blank, who)


def test_client_needs_an_address_and_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACE2VEC_TOKEN", raising=False)
    with pytest.raises(SettingsError, match="no token"):
        Client("http://127.0.0.1:1")
    with pytest.raises(SettingsError, match="no address"):
        Client("indexes/family", token=TOKEN)


def test_client_says_when_nothing_answers(service: Served) -> None:
    with Client("http://127.0.0.1:1", token=TOKEN) as nobody, pytest.raises(ServiceError) as raised:
        nobody.info()
    assert "does not answer" in str(raised.value)
    with Client(service.base, token="x" * 20) as stranger, pytest.raises(ServiceError) as raised:
        stranger.info()
    assert "token" in str(raised.value)


def test_client_sends_no_file_that_is_no_photo(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"no photo")
    with (
        Client("http://127.0.0.1:1", token=TOKEN) as nobody,  # it would say that nothing answers
        pytest.raises(PhotoError, match=r"secret\.jpg: not a photo"),
    ):
        nobody.search(tmp_path / "secret.jpg")


def test_client_gets_what_has_no_method(client: Client, engine: Face2Vec) -> None:
    ada = engine.person("Ada")
    page = client.get("/photos", person=ada.id, limit=1)
    assert page["total"] == len({one.photo for one in engine.faces_of(ada)})
    assert page["photos"][0]["path"] == min(one.photo for one in engine.faces_of(ada))
    with pytest.raises(GalleryError, match="no person 999"):
        client.get("/people/999")


def test_client_sends_no_token_after_a_redirect() -> None:
    asked: list[str] = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Redirecting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        with Client(address, token=TOKEN) as client, pytest.raises(ServiceError):
            client.info()
        server.shutdown()
        thread.join()
    assert asked == ["/v1/info"]


def test_search_command_takes_an_address(service: Served, engine: Face2Vec, who: Path) -> None:
    done = CliRunner().invoke(main, ["search", service.address, str(who), "-k", "2", "--json"])
    assert done.exit_code == 0, done.output
    (known,) = engine.search(who, 2)
    assert known.matches[0].photo in done.stdout
    assert '"rank": 2' in done.stdout
    done = CliRunner().invoke(main, ["search", service.address, str(who), "--by", "pose"])
    assert done.exit_code == 2
    assert "on this machine" in done.output


def test_client_marks_faces_by_hand(drawn: Path, tmp_path: Path) -> None:
    with served(copied(drawn, tmp_path)) as one, Client(one.address) as client:
        number, box = add_missed(one, tmp_path)
        made = client.mark_face(number, box)
        assert made.mark is None
        assert client.undo() == f"marking of face {made.face} by hand"
        other = client.mark_face(number, (0, 0, 12, 12))
        assert other == Marked(mark=1)
        person = client.name_mark(1, "Zoe")
        assert client.marks(number) == [Mark(1, number, (0, 0, 12, 12), person.id)]
        assert client.name_mark(1, None) is None
        client.unmark(1)
        assert client.marks(number) == []
        with pytest.raises(GalleryError, match="no mark 1"):
            client.unmark(1)
        with pytest.raises(SettingsError, match="box must be four numbers"):
            client.mark_face(number, (0, 0, 12))
