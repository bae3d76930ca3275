"""The MCP server, asked by the SDK's own client over standard input and output."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from click.testing import CliRunner
from helpers import Started, names_of_any_bytes
from mcp import Client as McpClient
from mcp import StdioServerParameters, stdio_client
from mcp.types import CallToolResult, Tool
from PIL import Image
from serving import READ_TOKEN, served

import face2vec
from face2vec import Client, Face2Vec, samples
from face2vec.cli.main import main
from face2vec.mcp import create_server

ROOT = Path(__file__).parents[1]
REFUSED = 70
GUARDED = f"""
import os, sys
folder = sys.argv.pop(1)
def refuse(event, values):
    network = event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto")
    flags = values[2] if event == "open" and isinstance(values[2], int) else 0
    writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if network or (writes and str(values[0]).startswith(folder)):
        os.write(2, f"refused: {{event}} {{values}}".encode())
        os._exit({REFUSED})
sys.addaudithook(refuse)
from face2vec.cli.main import main
main()
"""
"""The command line in a process that ends when it uses the network or opens a file to write.

The first argument is the folder in which no file may be opened to write, `writer.lock` included.
"""


class Server:
    """A server in a process of its own, and the SDK's client of it."""

    def __init__(self, portal: BlockingPortal, client: McpClient) -> None:
        self._portal, self._client = portal, client

    def tools(self) -> dict[str, Tool]:
        return {tool.name: tool for tool in self._portal.call(self._client.list_tools).tools}

    def ask(self, tool: str, **values: Any) -> CallToolResult:
        found: CallToolResult = self._portal.call(partial(self._client.call_tool, tool, values))
        return found

    def get(self, tool: str, **values: Any) -> Any:
        """The answer of a tool, which must be one."""
        found = self.ask(tool, **values)
        assert not found.is_error, found.content
        return found.structured_content

    def error(self, tool: str, **values: Any) -> str:
        """The words of a tool that answers with an error."""
        found = self.ask(tool, **values)
        assert found.is_error
        (content,) = found.content
        assert content.type == "text"
        return content.text


@contextmanager
def started(*arguments: str | Path, cache: Path) -> Iterator[Server]:
    """A server that Python starts with these arguments."""
    parameters = StdioServerParameters(
        command=sys.executable,
        args=list(map(str, arguments)),
        env={"PYTHONPATH": str(ROOT), "FACE2VEC_CACHE": str(cache)},
    )
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(McpClient(stdio_client(parameters))) as client,
    ):
        yield Server(portal, client)


def hashes(folder: Path) -> dict[str, str]:
    # SQLite's map of its log, which readers share, is no content.
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if not file.name.endswith("-shm")
    }


@pytest.fixture(scope="module")
def drawn(drawn_service: Path) -> Path:
    return drawn_service


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "cache"


@pytest.fixture(scope="module")
def server(drawn: Path, cache: Path) -> Iterator[Server]:
    gallery = drawn / "gallery"
    before = hashes(gallery)
    with started("-c", GUARDED, gallery, "mcp", gallery, cache=cache) as one:
        yield one
        one.get("people")  # it is still there
    assert hashes(gallery) == before


@pytest.fixture(scope="module")
def engine(drawn: Path) -> Iterator[Face2Vec]:
    with Face2Vec(drawn / "gallery") as one:
        yield one


@pytest.fixture
def ada(tmp_path: Path) -> Path:
    """A photo of Ada that is not in the gallery."""
    samples.people(1, seed=3)[0].photo(99).save(tmp_path / "ada.jpg")
    return tmp_path / "ada.jpg"


def test_tools_are_described_and_only_read(server: Server) -> None:
    tools = server.tools()
    assert sorted(tools) == ["people", "photos_of", "search", "who_is_in"]
    for tool in tools.values():
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint
        assert not tool.annotations.open_world_hint
        assert tool.description
        assert "\n  " not in tool.description
        for value in tool.input_schema["properties"].values():
            assert value["description"]
        assert tool.output_schema is not None
    k = tools["search"].input_schema["properties"]["k"]
    assert (k["type"], k["default"], k["minimum"], k["maximum"]) == ("integer", 10, 1, 100)
    assert tools["search"].input_schema["required"] == ["photo"]
    assert tools["photos_of"].input_schema["properties"]["person"]["type"] == "string"


def test_search_answers_as_the_engine(
    server: Server, engine: Face2Vec, drawn: Path, ada: Path
) -> None:
    group = drawn / "photos" / "groups" / "0.jpg"
    names = {face: one.name for one in engine.people() for face in one.faces}
    for photo in (ada, group):
        found = server.get("search", photo=str(photo), k=5)["faces"]
        known = engine.search(photo, 5)
        assert len(found) == len(known) == (1 if photo == ada else 2)
        for one, other in zip(found, known, strict=True):
            assert other.face is not None
            assert one["box"] == [round(value) for value in other.face.box]
            assert [match["path"] for match in one["matches"]] == [m.photo for m in other.matches]
            assert [match["person"] for match in one["matches"]] == [
                names.get(m.face.id or 0) for m in other.matches
            ]
            for match, m in zip(one["matches"], other.matches, strict=True):
                assert m.probability is not None
                assert match["similarity"] == pytest.approx(m.similarity, abs=1e-3)
                assert match["probability"] == pytest.approx(m.probability, abs=1e-3)
                assert match["outside"] == list(m.outside)
    assert server.get("search", photo=str(ada), k=1)["faces"][0]["matches"][0]["person"] == "Ada"


def test_search_says_why_a_probability_is_less_certain(
    server: Server, ada: Path, tmp_path: Path
) -> None:
    with Image.open(ada) as photo:
        photo.resize((photo.width // 8, photo.height // 8)).save(tmp_path / "small.png")
    (face,) = server.get("search", photo=str(tmp_path / "small.png"), k=3)["faces"]
    for match in face["matches"]:
        (reason,) = match["outside"]
        assert re.fullmatch(r"one crop has only 2\d pixels", reason)


def test_search_without_a_face_finds_nothing(server: Server, tmp_path: Path) -> None:
    Image.new("RGB", (200, 200), "grey").save(tmp_path / "blank.png")
    assert server.get("search", photo=str(tmp_path / "blank.png")) == {"faces": []}
    assert server.get("who_is_in", photo=str(tmp_path / "blank.png")) == {"faces": []}


def test_who_is_in_names_people_and_lists_unknown_faces(
    server: Server, engine: Face2Vec, drawn: Path, ada: Path
) -> None:
    (face,) = server.get("who_is_in", photo=str(ada))["faces"]
    (known,) = engine.identify(ada)
    assert face["person"] == "Ada"
    assert face["probability"] == pytest.approx(known.probability, abs=1e-3)
    assert 0.5 < face["probability"] < 1
    strangers = drawn / "photos" / "groups" / "0.jpg"
    found = server.get("who_is_in", photo=str(strangers))["faces"]
    assert [one["person"] for one in found] == [None, None]
    assert [one["probability"] for one in found] == pytest.approx(
        [one.probability for one in engine.identify(strangers)], abs=1e-3
    )


def test_people_are_named_with_counts(server: Server, engine: Face2Vec) -> None:
    people = engine.people()
    named = {one.name: len(one.faces) for one in people if one.name is not None}
    assert sorted(named) == ["Ada", "Bob"]
    found = server.get("people")
    assert {one["name"]: one["faces"] for one in found["people"]} == named
    assert found["unnamed"] == len(people) - 2 > 0


def test_photos_of_a_person_come_in_parts(server: Server, engine: Face2Vec) -> None:
    known = sorted({one.photo for one in engine.faces_of("Ada")})
    assert len(known) > 2
    found = server.get("photos_of", person="Ada")
    assert (found["person"], found["photos"], found["total"]) == ("Ada", known, len(known))
    part = server.get("photos_of", person="Ada", skip=1, most=2)
    assert (part["photos"], part["total"]) == (known[1:3], len(known))


def test_errors_have_the_words_of_face2vec(server: Server, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no photo", encoding="utf-8")
    assert "there is no person 'Eve' in the gallery" in server.error("photos_of", person="Eve")
    for tool in ("search", "who_is_in"):
        assert f"{tmp_path / 'no.jpg'}: missing" in server.error(tool, photo=f"{tmp_path}/no.jpg")
        words = server.error(tool, photo=str(tmp_path / "text.jpg"))
        assert f"{tmp_path / 'text.jpg'}: not a photo" in words
        assert "not a regular file" in server.error(tool, photo=str(tmp_path))
    assert "k must be at least 1 and at most 100, not 0" in server.error(
        "search", photo=str(tmp_path / "text.jpg"), k=0
    )
    assert "most must be at least 1 and at most 500" in server.error(
        "photos_of", person="Ada", most=501
    )


@pytest.mark.parametrize("deed", ["network", "gallery"])
def test_guard_of_these_tests_ends_a_process(deed: str, drawn: Path, tmp_path: Path) -> None:
    gallery = shutil.copytree(drawn / "gallery", tmp_path / "gallery")
    photo = drawn / "photos" / "groups" / "0.jpg"
    command = {
        "network": ["search", "http://127.0.0.1:1/?token=x", photo],
        "gallery": ["name", gallery, "Ada", "Eve"],
    }[deed]
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, gallery, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == REFUSED, done.stderr


def test_standard_output_has_the_protocol_only(drawn: Path, ada: Path, cache: Path) -> None:
    def request(number: int, method: str, values: dict[str, Any]) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": number, "method": method, "params": values}

    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    begin = [
        request(1, "initialize", hello),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
    ]
    calls = [
        request(2, "tools/call", {"name": "search", "arguments": {"photo": str(ada), "k": 2}}),
        request(3, "tools/call", {"name": "who_is_in", "arguments": {"photo": "nowhere.jpg"}}),
    ]
    with Started(
        [sys.executable, "-m", "face2vec", "mcp", str(drawn / "gallery"), "-v"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), "FACE2VEC_CACHE": str(cache)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = []
        for message in [*begin, *calls]:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
            if "id" in message:
                lines.append(process.stdout.readline())
        rest, errors = process.communicate()
    assert process.returncode == 0, errors
    assert rest == ""
    answers = [json.loads(line) for line in lines]
    assert [(one["jsonrpc"], one["id"]) for one in answers] == [("2.0", 1), ("2.0", 2), ("2.0", 3)]
    assert answers[0]["result"]["serverInfo"]["name"] == "face2vec"
    assert answers[0]["result"]["serverInfo"]["version"] == face2vec.__version__
    assert "embedding network" in errors  # the log, which -v asks for


@pytest.mark.parametrize("sees_paths", [True, False])
def test_server_over_a_service_answers_as_over_the_gallery(
    sees_paths: bool, server: Server, drawn: Path, ada: Path, cache: Path
) -> None:
    with served(drawn, show_paths=sees_paths) as service:
        address = f"{service.base}/?token={READ_TOKEN}"
        with started("-m", "face2vec", "mcp", address, cache=cache) as distant:
            assert distant.get("people") == server.get("people")
            found, known = (one.get("photos_of", person="Ada") for one in (distant, server))
            assert (found["person"], found["total"]) == (known["person"], known["total"])
            if sees_paths:
                assert found["photos"] == known["photos"]
            else:
                assert all(name.startswith("photo ") for name in found["photos"])
            (one,), (other,) = (
                each.get("search", photo=str(ada), k=3)["faces"] for each in (distant, server)
            )
            assert [m["person"] for m in one["matches"]] == [m["person"] for m in other["matches"]]
            assert one["matches"][0]["similarity"] == pytest.approx(
                other["matches"][0]["similarity"], abs=1e-3
            )
            assert distant.get("who_is_in", photo=str(ada))["faces"][0]["person"] == "Ada"
            assert "there is no person 'Eve'" in distant.error("photos_of", person="Eve")
            assert "missing" in distant.error("search", photo="nowhere.jpg")
    with started("-m", "face2vec", "mcp", address, cache=cache) as alone:
        assert "does not answer" in alone.error("people")


def ask_directly(gallery: Face2Vec | Client, tool: str, **values: Any) -> CallToolResult:
    async def ask() -> CallToolResult:
        async with McpClient(create_server(gallery)) as client:
            return await client.call_tool(tool, values)

    return asyncio.run(ask())


def test_hidden_people_are_left_out(drawn: Path, tmp_path: Path) -> None:
    gallery = shutil.copytree(drawn / "gallery", tmp_path / "gallery")
    with Face2Vec(gallery) as engine:
        engine.hide("Ada")
        found = ask_directly(engine, "people").structured_content
    assert found is not None
    assert [one["name"] for one in found["people"]] == ["Bob"]


def test_gallery_that_is_upgraded_meanwhile_is_opened_again(
    drawn: Path, ada: Path, tmp_path: Path
) -> None:
    gallery = shutil.copytree(drawn / "gallery", tmp_path / "gallery")
    mini = Path(face2vec.__file__).parent / "models" / "mini.onnx"
    other = onnx.load(mini)  # not the file of the catalogue, but as good
    other.doc_string = "own"
    onnx.save(other, tmp_path / "own.onnx")
    description = {
        "dimension": 256,
        "input_size": 96,
        "alignment": "landmarks",
        "template": "face2vec",
        "standardization": "fixed",
        "mean": 127.5,
        "std": 127.5,
        "channels": "RGB",
        "layout": "NHWC",
        "mirror": True,
    }
    (tmp_path / "own.json").write_text(json.dumps(description), encoding="utf-8")
    with Face2Vec(gallery) as engine:
        before = ask_directly(engine, "search", photo=str(ada), k=1).structured_content
        with Face2Vec(gallery) as writing:
            assert writing.upgrade(tmp_path / "own.onnx").switched
        after = ask_directly(engine, "search", photo=str(ada), k=1).structured_content
    assert before is not None
    assert after is not None
    assert after["faces"][0]["matches"][0]["person"] == "Ada"
    paths = [found["faces"][0]["matches"][0]["path"] for found in (before, after)]
    assert paths[0] == paths[1]


@names_of_any_bytes
def test_paths_that_are_not_utf8_are_answered(drawn: Path, ada: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.jpg")
    shutil.copy(ada, tmp_path / name)
    with Face2Vec(tmp_path / "gallery", model="mini") as engine:
        engine.add(tmp_path / name)
        found = ask_directly(engine, "search", photo=str(ada)).structured_content
    assert found is not None
    assert found["faces"][0]["matches"][0]["path"] == str(tmp_path / "?.jpg")


def test_command_without_a_gallery_says_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["mcp", str(tmp_path / "none")])
    assert done.exit_code == 3
    assert "there is no gallery at" in done.stderr
    assert done.stdout == ""


def test_command_names_the_missing_extra(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    done = CliRunner().invoke(main, ["mcp", str(drawn / "gallery")])
    assert done.exit_code == 3
    assert "pip install 'face2vec[mcp]'" in done.stderr
