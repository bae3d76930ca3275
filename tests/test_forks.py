"""A child process after a fork can do everything that its parent could, or says why not."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import needs, posix_only

from face2vec import Face2Vec, GalleryError, RuntimeUnavailableError, forks
from face2vec.runtime.onnxruntime import OnnxNetwork
from face2vec.runtime.packages import import_openvino
from face2vec.runtime.select import Runtime, choose_runtime

pytestmark = [
    posix_only,
    # Python warns of what is tested here: a fork of a process with threads.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

SECONDS = 120.0
"""A child that has not answered by then hangs."""


def in_child(work: Callable[[], Any]) -> Any:
    """What ``work`` returns in a forked child, or the error that it raises."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def run() -> None:
        try:
            theirs.send(work())
        except BaseException as error:
            theirs.send(error)

    child = context.Process(target=run)
    child.start()
    try:
        if not ours.poll(SECONDS):
            pytest.fail("the child hangs")
        answer = ours.recv()
        child.join(SECONDS)
        assert child.exitcode == 0
    finally:
        child.kill()
        child.join()
    return answer


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def used(
    request: pytest.FixtureRequest,
    faces_folder: Path,
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Face2Vec]:
    """An engine that has used all its threads, and runtimes with threads of their own."""
    if request.param == "openvino":
        needs("openvino", "openvino")
    folder = tmp_path_factory.mktemp("forks") / request.param
    options = {"runtime": request.param, "threads": 2}
    with Face2Vec(folder, model=tiny_model, **options) as engine:
        engine.add(faces_folder)
        query = faces_folder / "both.jpg"
        assert len(list(engine.bulk_encode([query] * 20))) == 20
        for _ in range(3):
            engine.search(many(engine))
        yield engine


def many(engine: Face2Vec) -> np.ndarray:
    """So many query embeddings that FAISS shares them among threads."""
    dimension = engine.info()["dimension"]
    return np.random.default_rng(0).standard_normal((200, dimension)).astype(np.float32)


def ids(results: Any) -> list[list[Any]]:
    return [[match.face.id for match in result.matches] for result in results]


def test_child_searches(used: Face2Vec, faces_folder: Path) -> None:
    query = faces_folder / "both.jpg"
    for asked in (str(query), query.read_bytes(), many(used)):
        here = ids(used.search(asked, k=3))
        assert here[0]
        assert in_child(lambda asked=asked: ids(used.search(asked, k=3))) == here


def test_child_encodes(used: Face2Vec, faces_folder: Path) -> None:
    query = faces_folder / "both.jpg"
    one = in_child(lambda: used.encode(query))
    several = in_child(lambda: list(used.bulk_encode([query] * 20)))
    here = used.encode(query)
    assert len(here) == 2
    for faces in (one, *several):
        assert [face.box for face in faces] == [face.box for face in here]
        for face, own in zip(faces, here, strict=True):
            assert face.embedding @ own.embedding > 0.999


def test_child_adds_and_parent_finds_it(used: Face2Vec, faces_folder: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.jpg"
    new.write_bytes((faces_folder / "hopper.jpg").read_bytes() + b"\0")
    faces = used.info()["faces"]
    assert in_child(lambda: used.add(new).added) == 1
    assert used.info()["faces"] == faces + 1
    (result,) = used.search(new, k=20)
    assert str(new.resolve()) in [match.photo for match in result.matches]
    assert used.remove(new).faces == 1
    assert used.check() == []


def test_child_edits_people_and_forks_again(used: Face2Vec) -> None:
    def work() -> str | None:
        person = used.this_person(None, 1)
        used.name(person, "Ada")
        name = in_child(lambda: used.person("Ada").name)
        used.undo()
        used.undo()
        return name

    assert in_child(work) == "Ada"
    assert used.people() == []


def test_child_that_closes_the_engine_leaves_the_parents_open(
    used: Face2Vec, faces_folder: Path
) -> None:
    query = faces_folder / "hopper.jpg"
    here = ids(used.search(query))
    assert in_child(used.close) is None
    assert ids(used.search(query)) == here
    assert [len(faces) for faces in used.bulk_encode([query] * 3)] == [1, 1, 1]


def test_child_works_if_threads_of_the_parent_held_every_lock(
    used: Face2Vec, faces_folder: Path
) -> None:
    session = used._session
    locks = [session._lock, session.index()._lock, session.gallery()._writing]
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in locks:
            lock.acquire()
        held.set()
        done.wait(SECONDS)
        for lock in locks:
            lock.release()

    query = faces_folder / "hopper.jpg"
    here = ids(used.search(query))
    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(SECONDS)
        found = in_child(lambda: (ids(used.search(query)), used.add(query).unchanged))
    finally:
        done.set()
        thread.join()
    assert found == (here, 1)


def test_results_of_the_parent_end_with_an_error_in_the_child(
    used: Face2Vec, faces_folder: Path
) -> None:
    stream = used.bulk_encode([faces_folder / "hopper.jpg"] * 20)
    assert len(next(stream)) == 1
    error = in_child(lambda: next(stream))
    assert isinstance(error, RuntimeUnavailableError)
    assert f"computed by process {os.getpid()}, from which this one was forked" in str(error)
    assert in_child(stream.close) is None
    assert len(list(stream)) == 19


def test_writer_of_the_parent_is_refused_in_the_child(used: Face2Vec, tmp_path: Path) -> None:
    gallery = used._session.gallery()
    with gallery.write() as writer:
        error = in_child(lambda: writer.remove(tmp_path / "a.jpg"))
        assert isinstance(error, GalleryError)
        assert f"belongs to process {os.getpid()}, from which this one was forked" in str(error)
        other = in_child(lambda: used.rebuild())
        assert isinstance(other, GalleryError)
        assert f"is being written by process {os.getpid()}" in str(other)
    assert used.check() == []


def test_cuda_of_the_parent_is_refused_in_the_child(tiny_model: Path) -> None:
    network = OnnxNetwork(tiny_model, cuda=False, few_sizes=False)
    network._cuda_of = os.getpid()  # as if it had been opened with CUDA
    crops = np.zeros((1, 3, 112, 112), np.float32)
    error = in_child(lambda: network.run({network.input_name: crops}))
    assert isinstance(error, RuntimeUnavailableError)
    assert str(error).startswith(f"CUDA was opened by process {os.getpid()}, ")
    assert network.run({network.input_name: crops})[0].shape == (1, 64)


def test_openvino_of_the_parent_is_replaced_in_the_child(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    needs("openvino", "openvino")
    openvino = import_openvino()
    network = Runtime("openvino", "f32", 2).load(tiny_model)
    crops = np.random.default_rng(0).standard_normal((3, 3, 112, 112)).astype(np.float32)
    (here,) = network.run({network.input_name: crops})

    def work() -> Any:
        chosen = choose_runtime("auto").name
        (there,) = network.run({network.input_name: crops})
        (again,) = in_child(lambda: network.run({network.input_name: crops}))
        return chosen, there, again, caplog.text

    chosen, there, again, said = in_child(work)
    assert chosen == "onnxruntime"
    np.testing.assert_allclose(there, here, atol=1e-4)
    np.testing.assert_array_equal(again, there)
    assert "OpenVINO cannot be used after a fork" in said
    error = in_child(lambda: choose_runtime("openvino"))
    assert isinstance(error, RuntimeUnavailableError)
    assert str(error).startswith(f"OpenVINO was opened by process {os.getpid()}, ")

    openvino.save_model(openvino.Core().read_model(str(tiny_model)), tmp_path / "tiny.xml")
    layers = Runtime("openvino", "f32", 2).load(tmp_path / "tiny.xml")
    error = in_child(lambda: layers.run({layers.input_name: crops}))
    assert isinstance(error, RuntimeUnavailableError)
    assert "is an OpenVINO file, and OpenVINO was opened by process" in str(error)


def test_renewed_objects_are_not_kept_alive() -> None:
    class Thing:
        calls: list[str] = []  # noqa: RUF012 - shared on purpose

        def __init__(self, name: str) -> None:
            self.name = name
            forks.renew_after_fork(self.renew)

        def renew(self) -> None:
            self.calls.append(self.name)

    kept, dropped = Thing("kept"), Thing("dropped")
    del dropped
    assert in_child(lambda: Thing.calls) == ["kept"]
    assert (Thing.calls, kept.name) == ([], "kept")


def test_gallery_that_was_copied_after_a_fork_is_sound(used: Face2Vec, tmp_path: Path) -> None:
    assert in_child(used.check) == []
    folder = shutil.copytree(used.info()["gallery"], tmp_path / "copy")
    with Face2Vec(folder) as copy:
        assert copy.check() == []
