from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import platformdirs
import pytest
from helpers import written
from keras_weights import random_layers, write_keras_2
from onnx import TensorProto, helper, numpy_helper

import face2vec.errors
from face2vec.errors import DownloadError, ModelError, SettingsError, UnknownModelError
from face2vec.models import CATALOGUE, LoadedModel, cache_dir, catalogue, load_model, store
from face2vec.models import cache as models_cache
from face2vec.models.description import FIVE_POINTS, ModelDescription
from face2vec.models.facenet import facenet_graph

PACKAGE_PARENT = Path(face2vec.errors.__file__).parents[1]
KEY = "20180402-114759"
NAME = f"{KEY}-weights.h5"
MINE = {"dimension": 2, "input_size": 4, "alignment": "landmarks", "template": "face2vec"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Random weights under the name of the published ones."""
    path = write_keras_2(tmp_path_factory.mktemp("site") / NAME, random_layers(512))
    yield path
    path.unlink()  # 94 MB, and pytest keeps folders


@pytest.fixture(scope="module")
def graph_bytes(weights: Path) -> bytes:
    return facenet_graph(weights, 512).SerializeToString()


@pytest.fixture(scope="module")
def site(weights: Path) -> Iterator[str]:
    """A web server that has the weights."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(weights.parent)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FACE2VEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    yield tmp_path / "cache"
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


@pytest.fixture
def published(weights: Path, site: str, monkeypatch: pytest.MonkeyPatch) -> ModelDescription:
    """The catalogue's first model, with the test's weights and address in place of the true."""
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    model = replace(CATALOGUE[KEY], url=f"{site}/{NAME}", sha256=sha256)
    in_catalogue(model, monkeypatch)
    return model


@pytest.fixture
def offline(published: ModelDescription, monkeypatch: pytest.MonkeyPatch) -> ModelDescription:
    """The same, at an address where nothing answers."""
    model = replace(published, url=f"http://127.0.0.1:9/{NAME}")
    in_catalogue(model, monkeypatch)
    return model


def in_catalogue(model: ModelDescription, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (catalogue, store):
        monkeypatch.setattr(module, "CATALOGUE", {**CATALOGUE, model.key: model})


def load(model: str | Path, **options: Any) -> LoadedModel:
    return load_model(model, **{"progress": False, **options})


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def tiny_graph(path: Path, *, external: str | None = None) -> Path:
    """An ONNX file that is no network of faces, but a valid one."""
    tensor = numpy_helper.from_array(np.arange(6, dtype=np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["weights"], ["embeddings"])],
        "tiny",
        [],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, [6])],
        [tensor],
    )
    model = helper.make_model(graph)
    if external is None:
        onnx.save(model, path)
    else:
        onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=0)
    return path


def describe(path: Path, **values: Any) -> Path:
    path.write_text(json.dumps({**MINE, **values}))
    return path


def sha256_of(*paths: Path) -> str:
    return hashlib.sha256(b"".join(p.read_bytes() for p in paths)).hexdigest()


# ---- where things are kept ----


def test_cache_dir_is_the_users_unless_the_environment_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACE2VEC_CACHE", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("FACE2VEC_CACHE")
    assert cache_dir() == Path(platformdirs.user_cache_dir("face2vec"))


# ---- models of the catalogue ----


def test_load_model_fetches_converts_and_keeps(
    published: ModelDescription, cache: Path, weights: Path, graph_bytes: bytes
) -> None:
    found = load(KEY)

    graph = cache / "onnx" / f"{KEY}-fp32-v1.onnx"
    assert found == LoadedModel(published, graph, published.sha256 or "", KEY)
    assert (cache / "weights" / NAME).read_bytes() == weights.read_bytes()
    assert graph.read_bytes() == graph_bytes
    record = json.loads(graph.with_suffix(".json").read_text())
    assert record["sha256"] == hashlib.sha256(graph_bytes).hexdigest()
    assert record["weights_sha256"] == published.sha256
    assert record["builder"] == 1
    assert files(cache / "onnx") == [f"{KEY}-fp32-v1.json", f"{KEY}-fp32-v1.onnx"]


def test_load_model_runs_an_onnx_file_of_the_catalogue_as_it_is(
    site: str, weights: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = weights.parent / "published.onnx"
    graph.write_bytes((store.SHIPPED / "mini.onnx").read_bytes())
    sha256 = hashlib.sha256(graph.read_bytes()).hexdigest()
    address = f"{site}/{graph.name}"
    model = replace(CATALOGUE["mini"], key="published", url=address, sha256=sha256, format="onnx")
    in_catalogue(model, monkeypatch)

    found = load("published")

    assert found == LoadedModel(model, cache / "weights" / graph.name, sha256, "published")
    assert found.path.read_bytes() == graph.read_bytes()
    assert not (cache / "onnx").exists()
    graph.unlink()
    assert load("published") == found  # a second run needs no server


@pytest.fixture
def onnx_model(
    site: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModelDescription]:
    """The entry of edgeface-xs with a stand-in file, which the server has."""
    known = CATALOGUE["edgeface-xs"]
    content = onnx.load(store.SHIPPED / "mini.onnx")
    content.doc_string = "stand-in"
    file = weights.parent / (known.url or "").rpartition("/")[2]
    onnx.save(content, file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    model = replace(known, url=f"{site}/{file.name}", sha256=sha256, size_bytes=None)
    in_catalogue(model, monkeypatch)
    yield model
    file.unlink(missing_ok=True)


def test_load_model_takes_a_published_file_put_there_by_hand(
    onnx_model: ModelDescription, weights: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = (onnx_model.url or "").rpartition("/")[2]
    in_catalogue(replace(onnx_model, url=f"http://127.0.0.1:9/{file}"), monkeypatch)
    with pytest.raises(DownloadError) as error:
        load("edgeface-xs")
    message = str(error.value)
    assert "run face2vec models get edgeface-xs again where there is a network" in message
    assert "FACE2VEC_MODELS_URL" in message
    assert f"save it as {cache / 'weights' / file} (SHA-256 {onnx_model.sha256})" in message
    shutil.copy(weights.parent / file, cache / "weights" / file)
    assert load("edgeface-xs").path == cache / "weights" / file


def test_load_model_prefers_a_mirror(
    onnx_model: ModelDescription, site: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = (onnx_model.url or "").rpartition("/")[2]
    in_catalogue(replace(onnx_model, url=f"http://127.0.0.1:9/{file}"), monkeypatch)
    monkeypatch.setenv("FACE2VEC_MODELS_URL", f"{site}/")
    assert load("edgeface-xs").path == cache / "weights" / file
    monkeypatch.setenv("FACE2VEC_MODELS_URL", "http://127.0.0.1:9/mirror")
    (cache / "weights" / file).unlink()
    with pytest.raises(DownloadError, match=f"from http://127.0.0.1:9/mirror/{file}"):
        load("edgeface-xs")


def test_load_model_prints_the_terms_once(
    onnx_model: ModelDescription, capsys: pytest.CaptureFixture[str]
) -> None:
    load("edgeface-xs", progress=True)
    assert capsys.readouterr().err.startswith("Terms of edgeface-xs: licence: ")
    load("edgeface-xs", progress=True)
    assert capsys.readouterr() == ("", "")


def test_load_model_without_progress_prints_nothing(
    onnx_model: ModelDescription, capsys: pytest.CaptureFixture[str]
) -> None:
    load("edgeface-xs")
    assert capsys.readouterr() == ("", "")


def test_load_model_knows_a_published_onnx_file_wherever_it_lies(
    onnx_model: ModelDescription, weights: Path, tmp_path: Path
) -> None:
    file = weights.parent / (onnx_model.url or "").rpartition("/")[2]
    own = shutil.copy(file, tmp_path / "own.onnx")
    assert store.published_as(own) == onnx_model
    assert load(own) == LoadedModel(onnx_model, own, onnx_model.sha256 or "", str(own))
    assert store.published_as(tiny_graph(tmp_path / "tiny.onnx")) is None


def test_load_model_uses_weights_put_there_by_hand(
    offline: ModelDescription, cache: Path, weights: Path, graph_bytes: bytes
) -> None:
    (cache / "weights").mkdir(parents=True)
    os.link(weights, cache / "weights" / NAME)
    assert load(KEY).path.read_bytes() == graph_bytes


def test_load_model_offline_says_where_to_put_the_weights(
    offline: ModelDescription, cache: Path
) -> None:
    with pytest.raises(DownloadError) as error:
        load(KEY)
    assert f"save it as {cache / 'weights' / NAME} (SHA-256 {offline.sha256})" in str(error.value)
    assert not list(cache.glob("onnx/*.onnx"))


def test_load_model_never_builds_from_weights_with_another_hash(
    offline: ModelDescription, cache: Path, weights: Path
) -> None:
    (cache / "weights").mkdir(parents=True)
    damaged = bytearray(weights.read_bytes())
    damaged[-1000] ^= 1
    (cache / "weights" / NAME).write_bytes(damaged)
    with pytest.raises(DownloadError, match="replacing a file with another hash"):
        load(KEY)
    assert not list(cache.glob("onnx/*.onnx"))


@pytest.fixture
def cached(offline: ModelDescription, cache: Path, weights: Path, graph_bytes: bytes) -> Path:
    """A graph in the cache as an earlier run has left it, and no network."""
    graph = cache / "onnx" / f"{KEY}-fp32-v1.onnx"
    graph.parent.mkdir(parents=True)
    graph.write_bytes(graph_bytes)
    sha256 = hashlib.sha256(graph_bytes).hexdigest()
    models_cache.write_record(graph, sha256, offline.sha256 or "")
    return graph


def test_load_model_takes_the_graph_from_the_cache_without_the_weights(
    cached: Path, cache: Path
) -> None:
    before = written(cached)
    assert load(KEY).path == cached
    assert written(cached) == before
    assert not (cache / "weights").exists()
    assert files(cache / "onnx") == [f"{KEY}-fp32-v1.json", f"{KEY}-fp32-v1.onnx"]


def test_load_model_of_a_cached_graph_imports_neither_onnx_nor_h5py(
    weights: Path, cache: Path
) -> None:
    describe(weights.with_suffix(".json"), dimension=512, input_size=160, sha256=sha256_of(weights))
    try:
        load(weights)
        code = (
            "import sys; from face2vec.models import load_model; load_model(sys.argv[1]); "
            "print(sorted({'onnx', 'h5py', 'onnxruntime', 'tqdm'} & set(sys.modules)))"
        )
        output = subprocess.run(
            [sys.executable, "-c", code, str(weights)],
            env={**os.environ, "PYTHONPATH": str(PACKAGE_PARENT)},
            check=True,
            capture_output=True,
            text=True,
        )
    finally:
        weights.with_suffix(".json").unlink()
    assert output.stdout.strip() == "[]"


def test_load_model_trusts_an_untouched_graph_and_hashes_a_touched_one(
    cached: Path, graph_bytes: bytes
) -> None:
    os.utime(cached, ns=(1, 1))
    inode = cached.stat().st_ino
    assert load(KEY).path == cached
    assert cached.stat().st_ino == inode, "the whole graph was built again"
    record = json.loads(cached.with_suffix(".json").read_text())
    assert record["mtime_ns"] == 1
    assert record["sha256"] == hashlib.sha256(graph_bytes).hexdigest()


def test_load_model_builds_a_damaged_graph_again(
    cached: Path, cache: Path, weights: Path, graph_bytes: bytes
) -> None:
    (cache / "weights").mkdir()
    os.link(weights, cache / "weights" / NAME)
    damaged = bytearray(graph_bytes)
    damaged[50_000_000] ^= 1
    cached.write_bytes(damaged)

    assert load(KEY).path == cached

    assert cached.read_bytes() == graph_bytes
    record = json.loads(cached.with_suffix(".json").read_text())
    assert record["mtime_ns"] == cached.stat().st_mtime_ns


@pytest.mark.parametrize(
    "change",
    [
        lambda graph, record: (graph.write_bytes(b"grapH"), os.utime(graph, ns=(1, 1))),
        lambda graph, record: graph.write_bytes(b"grap"),
        lambda graph, record: graph.unlink(),
        lambda graph, record: record.unlink(),
        lambda graph, record: record.write_text("["),
        lambda graph, record: record.write_text("[]"),
        lambda graph, record: record.write_text("{}"),
        lambda graph, record: record.write_bytes(b"\xff"),
        lambda graph, record: set_in(record, builder=0),
        lambda graph, record: set_in(record, weights_sha256="b" * 64),
        lambda graph, record: (os.utime(graph, ns=(1, 1)), set_in(record, sha256="c" * 64)),
    ],
    ids=[
        "other bytes",
        "cut",
        "no graph",
        "no record",
        "no JSON",
        "a list",
        "empty",
        "no text",
        "old builder",
        "other weights",
        "other hash",
    ],
)
def test_cached_graph_is_whole_only_as_it_was_recorded(tmp_path: Path, change: Any) -> None:
    graph = tmp_path / "net-fp32-v1.onnx"
    graph.write_bytes(b"graph")
    models_cache.write_record(graph, hashlib.sha256(b"graph").hexdigest(), "a" * 64)
    assert models_cache.is_intact(graph, "a" * 64)
    change(graph, graph.with_suffix(".json"))
    assert not models_cache.is_intact(graph, "a" * 64)


def set_in(record: Path, **values: Any) -> None:
    record.write_text(json.dumps({**json.loads(record.read_text()), **values}))


def test_load_model_does_not_take_the_graph_of_other_weights(
    cached: Path, offline: ModelDescription, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_catalogue(replace(offline, sha256="0" * 64), monkeypatch)
    with pytest.raises(DownloadError):
        load(KEY)


def test_load_model_keeps_fp16_beside_fp32(cached: Path, cache: Path, weights: Path) -> None:
    (cache / "weights").mkdir()
    os.link(weights, cache / "weights" / NAME)
    half = load(KEY, precision="fp16")
    assert half.path.name == f"{KEY}-fp16-v1.onnx"
    assert half.path.stat().st_size < 0.52 * cached.stat().st_size
    assert load(KEY).path == cached


def test_load_model_refuses_an_unknown_precision_before_anything_else(cache: Path) -> None:
    with pytest.raises(SettingsError, match="'fp8' must be one of fp32, fp16"):
        load(KEY, precision="fp8")
    assert not cache.exists()


def test_load_model_names_the_setting_when_the_cache_cannot_be_written(
    published: ModelDescription, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FACE2VEC_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="set FACE2VEC_CACHE to a writable folder"):
        load(KEY)


def test_load_model_lists_the_catalogue_for_an_unknown_name() -> None:
    with pytest.raises(UnknownModelError, match="did you mean '20180402-114759'"):
        load("20180402-114758")


def test_load_model_by_two_processes_at_once_gives_one_whole_graph(
    weights: Path, cache: Path, graph_bytes: bytes, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.h5"
    mine.symlink_to(weights)
    describe(tmp_path / "mine.json", dimension=512, input_size=160)
    code = "import sys; from face2vec.models import load_model; print(load_model(sys.argv[1]).path)"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(mine)],
            env={**os.environ, "PYTHONPATH": str(PACKAGE_PARENT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    (path,) = outputs
    assert Path(path).read_bytes() == graph_bytes
    assert files(cache / "onnx") == [Path(path).stem + ".json", Path(path).name]


# ---- a user's own weights of the network ----


def test_load_model_knows_published_weights_wherever_they_lie(
    offline: ModelDescription, cached: Path, weights: Path
) -> None:
    assert load(weights) == LoadedModel(offline, cached, offline.sha256 or "", str(weights))


def test_load_model_prefers_the_description_beside_published_weights(
    offline: ModelDescription, weights: Path, cache: Path
) -> None:
    mine = cache / "mine.h5"
    mine.parent.mkdir(exist_ok=True)
    os.link(weights, mine)
    describe(cache / "mine.json", dimension=512, input_size=160)
    found = load(mine)
    assert found.description.alignment == "landmarks"
    assert found.weights_sha256 == offline.sha256


def test_load_model_converts_described_weights(
    weights: Path, cache: Path, graph_bytes: bytes, tmp_path: Path
) -> None:
    mine = tmp_path / "tuned.h5"
    mine.symlink_to(weights)
    describe(tmp_path / "tuned.json", dimension=512, input_size=160, trained_on="my family")

    found = load(mine)

    expected = ModelDescription(
        "tuned", 512, 160, "landmarks", template=FIVE_POINTS, trained_on="my family"
    )
    sha256 = sha256_of(weights)
    graph = cache / "onnx" / f"{sha256[:16]}-fp32-v1.onnx"
    assert found == LoadedModel(expected, graph, sha256, str(mine))
    assert graph.read_bytes() == graph_bytes
    again = load(tmp_path / "tuned.json")
    assert again == replace(found, origin=str(tmp_path / "tuned.json"))


def test_load_model_shows_what_to_write_for_weights_without_a_description(
    weights: Path, cache: Path
) -> None:
    with pytest.raises(ModelError, match=r"has no description; write one to") as error:
        load(weights)
    assert str(weights.with_suffix(".json")) in str(error.value)
    model = ModelDescription.from_json(example_in(error.value))
    assert (model.alignment, model.margin, model.margin_size) == ("margin", 44, 182)


def example_in(error: Exception) -> str:
    found = re.search(r"\{.*\}", str(error))
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dimension": 512, "input_size": 112}, "has input_size 112 and layout NHWC"),
        ({"dimension": 512, "input_size": 160, "layout": "NCHW"}, "160 and layout NCHW"),
        ({"dimension": 128, "input_size": 160}, "'Bottleneck'"),
        ({"dimension": 512, "input_size": 160, "sha256": "0" * 64}, f"gives sha256 {'0' * 64}"),
    ],
)
def test_load_model_refuses_a_description_that_does_not_fit_the_weights(
    weights: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    mine = tmp_path / "mine.h5"
    mine.symlink_to(weights)
    describe(tmp_path / "mine.json", **values)
    with pytest.raises(ModelError, match=message):
        load(mine)


# ---- a user's own graph ----


def test_load_model_takes_an_onnx_file_with_its_description(tmp_path: Path, cache: Path) -> None:
    graph = tiny_graph(tmp_path / "own.onnx")
    describe(tmp_path / "own.json", key="own net")
    found = load(graph)
    expected = ModelDescription("own net", 2, 4, "landmarks", template=FIVE_POINTS)
    assert found == LoadedModel(expected, graph, sha256_of(graph), str(graph))
    assert not cache.exists()


def test_fingerprint_tells_means_of_channels_apart_and_is_json(tmp_path: Path) -> None:
    graph = tiny_graph(tmp_path / "own.onnx")
    digests = set()
    for mean in (127.5, [127.5, 127.5, 1.0], [1.0, 127.5, 127.5]):
        describe(tmp_path / "own.json", mean=mean)
        made = load(graph).fingerprint
        assert made.standardization == ["fixed", mean, 127.5]
        assert json.loads(json.dumps(made.to_dict())) == made.to_dict()
        digests.add(made.digest)
    assert len(digests) == 3


def test_load_model_takes_a_relative_path_and_gives_an_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = tiny_graph(tmp_path / "own.onnx")
    describe(tmp_path / "own.json")
    monkeypatch.chdir(tmp_path)
    found = load("own.onnx")
    assert (found.path, found.origin) == (graph, str(graph))


def test_load_model_takes_the_file_that_a_description_names(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    graph = tiny_graph(tmp_path / "nets" / "v2.onnx")
    described = describe(tmp_path / "own.json", file="nets/v2.onnx")
    found = load(described)
    assert found.path == graph
    assert found.description.key == "own"
    assert found.origin == str(described)


def test_load_model_takes_a_graph_of_the_descriptions_name(tmp_path: Path) -> None:
    graph = tiny_graph(tmp_path / "own.onnx")
    assert load(describe(tmp_path / "own.json")).path == graph


@pytest.mark.parametrize(
    ("values", "graphs", "message"),
    [
        ({}, [], "0 model files beside it"),
        ({}, ["own.onnx", "own.xml"], "2 model files beside it"),
        ({"file": "own.pb"}, ["own.pb"], r"'own\.pb' must end in one of \.onnx, \.xml, \.h5"),
        ({"file": "gone.onnx"}, [], "gone.onnx does not exist"),
    ],
)
def test_load_model_refuses_a_description_without_one_model(
    tmp_path: Path, values: dict[str, Any], graphs: list[str], message: str
) -> None:
    for name in graphs:
        (tmp_path / name).touch()
    with pytest.raises(ModelError, match=message):
        load(describe(tmp_path / "own.json", **values))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_load_model_reads_a_description_as_other_programs_write_it(
    tmp_path: Path, encoding: str
) -> None:
    tiny_graph(tmp_path / "own.onnx")
    described = describe(tmp_path / "own.json")
    plain = load(tmp_path / "own.onnx").fingerprint
    described.write_bytes(described.read_text(encoding="utf-8").encode(encoding))
    assert load(tmp_path / "own.onnx").fingerprint == plain


@pytest.mark.parametrize("text", ["{", "[]", "\xff\xfe"])
def test_load_model_refuses_a_description_that_is_not_json(tmp_path: Path, text: str) -> None:
    tiny_graph(tmp_path / "own.onnx")
    (tmp_path / "own.json").write_bytes(text.encode("latin-1"))
    for name in ("own.json", "own.onnx"):
        with pytest.raises(ModelError, match=r"own\.json"):
            load(tmp_path / name)


def test_load_model_shows_what_to_write_for_a_graph_without_a_description(
    tmp_path: Path,
) -> None:
    graph = tiny_graph(tmp_path / "own.onnx")
    with pytest.raises(ModelError, match=r"has no description; write one to") as error:
        load(graph)
    assert str(tmp_path / "own.json") in str(error.value)
    assert "\n" not in str(error.value)
    assert ModelDescription.from_json(example_in(error.value)).template == FIVE_POINTS


def test_load_model_refuses_a_graph_with_another_hash_than_described(tmp_path: Path) -> None:
    graph = tiny_graph(tmp_path / "own.onnx")
    describe(tmp_path / "own.json", sha256="0" * 64)
    with pytest.raises(ModelError, match=f"but .*own.onnx has {sha256_of(graph)}"):
        load(graph)
    describe(tmp_path / "own.json", sha256=sha256_of(graph))
    assert load(graph).path == graph


def test_load_model_fingerprints_weights_that_lie_outside_the_graph(tmp_path: Path) -> None:
    graph = tiny_graph(tmp_path / "own.onnx", external="own.data")
    describe(tmp_path / "own.json")
    assert load(graph).weights_sha256 == sha256_of(graph, tmp_path / "own.data")
    (tmp_path / "own.data").unlink()
    with pytest.raises(ModelError, match=r"has its weights in .*own\.data, which does not exist"):
        load(graph)


def test_load_model_takes_an_openvino_file_with_its_weights(tmp_path: Path) -> None:
    graph, values = tmp_path / "own.xml", tmp_path / "own.bin"
    graph.write_text("<net/>")
    describe(tmp_path / "own.json")
    with pytest.raises(ModelError, match=r"own\.bin, which does not exist"):
        load(graph)
    values.write_bytes(b"weights")
    found = load(graph)
    assert found.path == graph
    assert found.weights_sha256 == hashlib.sha256(b"<net/>weights").hexdigest()


def test_load_model_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("own.onnx", "own.xml", "own.h5", "own.json"):
        with pytest.raises(ModelError, match=f"there is no model file {tmp_path / name}"):
            load(tmp_path / name)


def test_load_model_refuses_a_file_that_is_not_onnx(tmp_path: Path) -> None:
    (tmp_path / "own.onnx").write_bytes(b"a location, but no graph")
    describe(tmp_path / "own.json")
    with pytest.raises(ModelError, match=r"own\.onnx is not an ONNX file"):
        load(tmp_path / "own.onnx")


# --- shipped ---------------------------------------------------------------------------------


def test_shipped_model_needs_neither_cache_nor_network(cache: Path) -> None:
    model = load("mini")
    assert model.path.parent == store.SHIPPED
    assert model.weights_sha256 == model.description.sha256
    assert model.path.stat().st_size == model.description.size_bytes <= 4_000_000
    assert not cache.exists()


def test_shipped_model_that_was_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mini.onnx").write_bytes(load("mini").path.read_bytes()[:-1])
    monkeypatch.setattr(store, "SHIPPED", tmp_path)
    with pytest.raises(ModelError):
        load("mini")
    (tmp_path / "mini.onnx").unlink()
    with pytest.raises(ModelError, match=r"a part of face2vec, is missing"):
        load("mini")


def test_weights_of_a_shipped_model_are_no_file_of_their_own() -> None:
    with pytest.raises(ModelError, match="no file to download"):
        store.weights_of("mini")
