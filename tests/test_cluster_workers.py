"""What encodes photos: one suite over the encoder of this process and over actors of Ray."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_servers import NODES
from helpers import Started
from test_cluster_gallery import faces_in, open_at

from face2vec import PhotoError, RuntimeUnavailableError, open_photo, samples
from face2vec.encoding.seam import Workers
from face2vec.types import Unopened


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten photos."""
    folder = tmp_path_factory.mktemp("drawn") / "photos"
    samples.write(folder, people=3, photos=3, groups=1, seed=1)
    return sorted(folder.rglob("*.jpg"))


# These two stand before the fixture that keeps all processors of the cluster.


@pytest.mark.cluster
def test_build_with_ray_equals_one_without(servers: Any, drawn: list[Path], tmp_path: Path) -> None:
    galleries = []
    scratch = Path(tempfile.gettempdir())
    before = set(scratch.glob("face2vec-*"))
    for name, ray in (("with", servers.ray.address), ("without", None)):
        with open_at(str(tmp_path / name), ray=ray) as engine:
            assert engine.add(*drawn).added == 10
            galleries.append(faces_in(engine))
    assert galleries[0] == galleries[1]
    assert set(scratch.glob("face2vec-*")) == before  # the model's file does not outlive its use


@pytest.mark.cluster
def test_stdout_of_a_command_has_its_result_alone_though_a_node_is_lost(
    servers: Any, tmp_path: Path
) -> None:
    samples.write(tmp_path / "photos", people=20, photos=30, groups=0, seed=4)
    command = [sys.executable, "-m", "face2vec", "index", str(tmp_path / "photos"), "--json"]
    place = str(tmp_path / "gallery")
    try:
        with Started(
            [*command, "--gallery", place, "--ray", servers.ray.address, "-q"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while process.poll() is None and not (Path(place) / "writer.json").exists():
                time.sleep(0.1)
            servers.ray.end(NODES[1])
            found, said = process.communicate()
    finally:
        servers.ray.start(NODES[1])
    assert process.returncode == 0, said
    assert json.loads(found)["added"] == 600
    assert "marked dead" in said


@pytest.mark.cluster
def test_cluster_that_does_not_answer_is_told(drawn: list[Path], tmp_path: Path) -> None:
    with (
        open_at(str(tmp_path / "gallery"), ray="127.0.0.9:6398") as engine,
        pytest.raises(RuntimeUnavailableError, match=r"no Ray cluster at '127\.0\.0\.9:6398'"),
    ):
        engine.add(drawn[0])


@pytest.fixture(scope="module", params=["encoder", pytest.param("ray", marks=pytest.mark.cluster)])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    ray = None if request.param == "encoder" else request.getfixturevalue("servers").ray.address
    with open_at(None, ray=ray) as engine:
        yield engine._session.workers()


def test_workers_implement_the_seam(workers: Workers) -> None:
    assert isinstance(workers, Workers)


def test_results_have_the_order_and_the_faces_of_the_photos(
    workers: Workers, drawn: list[Path]
) -> None:
    items = [*drawn, *drawn[::-1]]
    found = list(workers.stream(items, lambda path: Unopened(str(path))))
    assert [one.item for one in found] == items
    with open_at(None) as engine:
        for path, one in zip(drawn, found, strict=False):
            faces = engine.encode(path)
            assert [face.box for face in one.faces] == [face.box for face in faces]
            for mine, theirs in zip(one.faces, faces, strict=True):
                assert mine.embedding.tobytes() == theirs.embedding.tobytes()
                assert mine.model == theirs.model
            with_size = open_photo(path)
            assert (one.width, one.height) == (with_size.width, with_size.height)


def test_photos_bytes_and_skipped_items_are_encoded(workers: Workers, drawn: list[Path]) -> None:
    path = drawn[0]
    sources = [
        Unopened(str(path)),
        Unopened(path.read_bytes(), str(path)),
        workers.read(path),
        None,
    ]
    found = list(workers.stream(sources, lambda source: source))
    assert [len(one.faces) for one in found[:3]] == [len(found[0].faces)] * 3
    assert found[0].faces[0].embedding.tobytes() == found[2].faces[0].embedding.tobytes()
    assert found[3].faces == ()


def test_unreadable_photo_is_the_error_of_its_item(
    workers: Workers, drawn: list[Path], tmp_path: Path
) -> None:
    broken, missing = tmp_path / "broken.jpg", tmp_path / "missing.jpg"
    broken.write_bytes(drawn[0].read_bytes()[:300])
    found = list(workers.stream([broken, drawn[0], missing], lambda path: Unopened(str(path))))
    assert isinstance(found[0].error, PhotoError)
    assert found[0].error.photo == str(broken)
    assert found[1].error is None
    assert found[1].faces
    assert isinstance(found[2].error, PhotoError)
    assert found[2].error.photo == str(missing)


def test_known_faces_are_embedded_in_their_order(workers: Workers, drawn: list[Path]) -> None:
    path = next(one for one in drawn if "groups" in str(one))
    (before,) = workers.stream([path], lambda path: Unopened(str(path)))
    backwards = before.faces[::-1]
    (after,) = workers.stream([path], lambda path: Unopened(str(path)), lambda _: backwards)
    assert [face.box for face in after.faces] == [face.box for face in backwards]
    for mine, theirs in zip(after.faces, backwards, strict=True):
        assert mine.embedding.tobytes() == theirs.embedding.tobytes()


def test_no_photos_give_no_results(workers: Workers) -> None:
    assert list(workers.stream([], lambda _: None)) == []
