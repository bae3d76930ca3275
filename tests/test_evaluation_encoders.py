"""Encoders of evaluations: the interface, names, face2vec's own, and keras-facenet's."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import needs
from keras_weights import PlainFaceNet, write_keras_2
from numpy.typing import NDArray
from PIL import Image

from face2vec import Face2Vec, samples
from face2vec.cli.main import main
from face2vec.encoding.embed import Embedder
from face2vec.errors import MissingExtraError, ModelError, SettingsError, UnknownModelError
from face2vec.evaluation.encoders import (
    EncodedFace,
    EncodedPhoto,
    check_encoder,
    is_other,
    keras_facenet,
    open_encoder,
)
from face2vec.evaluation.encoders.seam import described, one_by_one, unit_rows
from face2vec.evaluation.report import pairs_report
from face2vec.evaluation.sets import encoded_faces, named_faces, photos_in
from face2vec.models import CATALOGUE, load_model
from face2vec.runtime.select import choose_runtime

KEY, KEY_128 = "20180402-114759", "20170512-110547"


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawn people side by side, saved without loss."""
    path = tmp_path_factory.mktemp("group") / "three.png"
    Image.fromarray(samples.group_photo(samples.people(3, seed=4), 1).image).save(path)
    return path


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def face(left: float, *numbers: float) -> EncodedFace:
    return EncodedFace((left, 0, left + 10, 10), np.array(numbers, np.float32))


# --- the interface --------------------------------------------------------------------------


def test_centre_face_is_the_nearest_to_the_centre() -> None:
    left, middle, right = face(0, 1), face(48, 2), face(90, 3)
    photo = EncodedPhoto((left, right, middle), 100, 10)
    assert photo.centre_face is middle
    assert EncodedPhoto((), 100, 10).centre_face is None


def test_one_by_one_records_failures_per_photo(
    group: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[NDArray[np.uint8]] = []

    def faces_in(image: NDArray[np.uint8]) -> Sequence[EncodedFace]:
        sys.stdout.write("a bar")
        seen.append(image)
        if len(seen) == 2:
            raise ZeroDivisionError("no size")
        return [face(1, 1)]

    pixels = pixels_of(group)
    first, broken, second = one_by_one([group, b"no photo", pixels], faces_in)
    assert np.array_equal(seen[0], pixels)
    assert (first.width, first.height, first.failure) == (*pixels.shape[1::-1], "")
    assert first.faces[0].box == (1, 0, 11, 10)
    assert (broken.faces, broken.width) == ((), 0)
    assert "<bytes>" in broken.failure
    assert second.faces == ()
    assert second.failure == "<array>: ZeroDivisionError: no size"
    assert (second.width, second.height) == pixels.shape[1::-1]
    assert capsys.readouterr().out == ""


def test_unit_rows_normalises_and_refuses_zero_and_infinite_length() -> None:
    rows = unit_rows("x", [[3.0, 4.0], [0.0, -2.0]])
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, -1]], atol=1e-7)
    assert unit_rows("x", np.array([5.0, 0.0])).shape == (1, 2)
    for bad in ([[0.0, 0.0]], [[np.nan, 1.0]]):
        with pytest.raises(ModelError, match="x gave an embedding of zero or infinite length"):
            unit_rows("x", bad)


def test_described_gives_an_error_and_its_cause_on_one_line() -> None:
    error = ValueError("two\nlines")
    error.__cause__ = OSError()
    assert described(error) == "ValueError: two lines (OSError)"
    error.__cause__ = KeyError("other")
    assert described(error) == "ValueError: two lines (KeyError: 'other')"
    error.__cause__ = ValueError("two")
    assert described(error) == "ValueError: two lines"


# --- names ----------------------------------------------------------------------------------


def test_is_other_recognises_prefixes_of_other_packages() -> None:
    assert [is_other(n) for n in ("keras-facenet:x", "deepface:DeepFace")] == [True, True]
    assert [is_other(n) for n in (None, "mini", "deepface.onnx", Path("a/b.json"))] == [False] * 4


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("minni", UnknownModelError, "did you mean 'mini'"),
        ("gone.onnx", ModelError, "there is no model file .*gone.onnx"),
        ("keras-facenet:2018", UnknownModelError, f"keras-facenet has no model '2018'.*{KEY}"),
        ("keras-facenet", SettingsError, "use keras-facenet:KEY"),
        ("deepface:", SettingsError, "deepface:MODEL:DETECTOR"),
    ],
)
def test_invalid_encoder_names_are_refused(name: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        check_encoder(name)
    with pytest.raises(error):
        open_encoder(name)


def test_valid_encoder_names_are_accepted(tiny_model: Path) -> None:
    for name in ("mini", KEY, str(tiny_model), f"keras-facenet:{KEY}", "deepface:DeepFace:mtcnn"):
        check_encoder(name)


@pytest.mark.parametrize(
    ("name", "missing", "line"),
    [
        (f"keras-facenet:{KEY}", "scipy", "pip install 'face2vec[keras]'"),
        ("deepface:Facenet512", "deepface", "pip install 'face2vec[deepface]'"),
        ("deepface:Facenet512", "werkzeug", "pip install 'face2vec[deepface]'"),
    ],
)
def test_missing_packages_name_the_extra(
    name: str, missing: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda package: None if package == missing else object()
    )
    with pytest.raises(MissingExtraError) as raised:
        open_encoder(name)
    assert f"needs the package '{missing}', which is not installed" in str(raised.value)
    assert str(raised.value).endswith(line)


# --- face2vec's own -------------------------------------------------------------------------


def test_own_encoder_equals_the_engine(tiny_model: Path, group: Path) -> None:
    with closing(open_encoder(tiny_model)) as encoder, Face2Vec(model=tiny_model) as engine:
        (photo, broken) = encoder.encode([group, b"no photo"])
        expected = engine.encode(group)
    assert len(photo.faces) == len(expected) == 3
    for one, other in zip(photo.faces, expected, strict=True):
        assert one.box == other.box
        np.testing.assert_array_equal(one.embedding, other.embedding)
    assert (photo.height, photo.width) == pixels_of(group).shape[:2]
    assert broken.faces == ()
    assert "<bytes>" in broken.failure


def test_own_encoder_describes_a_users_onnx_model(tiny_model: Path) -> None:
    with closing(open_encoder(str(tiny_model), "onnxruntime")) as encoder:
        assert (encoder.name, encoder.dimension, encoder.crop_size) == ("tiny", 64, (112, 112))
        assert encoder.weights == hashlib.sha256(tiny_model.read_bytes()).hexdigest()
        assert encoder.weights_bytes == tiny_model.stat().st_size
        assert encoder.runs_on == "onnxruntime f32"
        crops = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
        expected = Embedder(load_model(tiny_model), choose_runtime("onnxruntime"))(crops)
        np.testing.assert_allclose(encoder.embed(crops), expected, atol=1e-6)


def test_external_weights_count_towards_the_size(tiny_model: Path, tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "apart.onnx"
    onnx.save(onnx.load(tiny_model), path, save_as_external_data=True, location="apart.bin",
              size_threshold=0)  # fmt: skip
    path.with_suffix(".json").write_text(tiny_model.with_suffix(".json").read_text())
    with closing(open_encoder(path)) as encoder:
        both = path.stat().st_size + (tmp_path / "apart.bin").stat().st_size
        assert encoder.weights_bytes == both > path.stat().st_size


def test_encoded_faces_equal_those_of_a_gallery(tiny_model: Path, tmp_path: Path) -> None:
    for person in samples.people(2, seed=8):
        (tmp_path / person.name).mkdir()
        for number in range(2):
            (tmp_path / person.name / f"{number}.jpg").write_bytes(person.photo(number).jpeg())
    Image.linear_gradient("L").save(tmp_path / person.name / "nobody.png")
    photos = photos_in(tmp_path)
    with closing(open_encoder(tiny_model)) as encoder:
        found = encoded_faces(photos, encoder)
    expected = named_faces(photos, model=tiny_model)
    assert (found.photos, found.boxes, found.names) == (
        *(expected.photos, expected.boxes, expected.names),
    )
    for name in ("embeddings", "people", "counts"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6)
    assert (found.model, found.weights) == (expected.model, expected.weights)
    assert found.ids.tolist() == list(range(4))


# --- keras-facenet --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package() -> Any:
    needs("keras", "tensorflow", "keras_facenet", "mtcnn", "scipy", "cv2")
    import keras_facenet

    return keras_facenet


@pytest.fixture(scope="module")
def random_weights(
    package: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[int], Path]]:
    """Weights files in the layout of keras-facenet's network, with random values."""
    from keras_facenet.inception_resnet_v1 import InceptionResNetV1

    folder = tmp_path_factory.mktemp("weights")

    def written(dimension: int) -> Path:
        path = folder / f"{dimension}.h5"
        if not path.is_file():
            drawn = PlainFaceNet(dimension, seed=dimension)
            layers = {}
            for layer in InceptionResNetV1(classes=dimension).layers:
                names = [weight.path.rsplit("/", 1)[-1] for weight in layer.weights]
                if names:
                    layers[layer.name] = {
                        name: drawn.draw(name, tuple(weight.shape))
                        for name, weight in zip(names, layer.weights, strict=True)
                    }
            write_keras_2(path, layers)
        return path

    yield written
    for path in folder.iterdir():  # pytest keeps temporary folders, and these files are large
        path.unlink()


@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", [KEY, KEY_128])
def test_keras_facenet_encoder_equals_extract(
    key: str,
    package: Any,
    random_weights: Callable[[int], Path],
    group: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dimension = CATALOGUE[key].dimension
    weights = random_weights(dimension)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    # Its own constructor uses a file in its folder if the checksum is right.
    (tmp_path / key).mkdir()
    (tmp_path / key / f"{key}-weights.h5").symlink_to(weights)
    monkeypatch.setitem(package.metadata.MODEL_METADATA[key], "keras_weights_sha256", sha256)
    theirs = package.FaceNet(key, cache_folder=str(tmp_path))
    fed: list[NDArray[np.float32]] = []

    def listen(network: Any) -> None:
        predict = network.predict
        monkeypatch.setattr(network, "predict", lambda x: fed.append(x) or predict(x, verbose=0))

    listen(theirs.model)
    expected = theirs.extract(str(group))
    assert len(expected) > 1  # the detections above its threshold

    encoder = open_encoder(f"keras-facenet:{key}:{weights}")
    assert (encoder.dimension, encoder.crop_size) == (dimension, (160, 160))
    assert (encoder.weights, encoder.weights_bytes) == (sha256, weights.stat().st_size)
    listen(encoder._facenet.model)  # type: ignore[attr-defined]
    (photo,) = encoder.encode([group])
    np.testing.assert_array_equal(fed[1], fed[0])
    assert fed[1].shape == (len(expected), 160, 160, 3)
    for one, other in zip(photo.faces, expected, strict=True):
        left, top, width, height = other["box"]
        assert one.box == (left, top, left + width, top + height)
        np.testing.assert_allclose(one.embedding, other["embedding"], atol=1e-5)

    side = encoder.crop_size[0]
    crops = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    expected_rows = theirs.embeddings(list(crops))
    np.testing.assert_allclose(encoder.embed(crops), expected_rows, atol=1e-5)


@pytest.mark.keras
@pytest.mark.filterwarnings("ignore")
def test_keras_facenet_encoder_refuses_invalid_weights(package: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no weights file .*gone\.h5"):
        open_encoder(f"keras-facenet:{KEY}:{tmp_path / 'gone.h5'}")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(ModelError, match=r"keras-facenet cannot load .*text\.h5: "):
        open_encoder(f"keras-facenet:{KEY}:{tmp_path / 'text.h5'}")


@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_evaluate_with_keras_facenet_prints_only_json(
    random_weights: Callable[[int], Path], tmp_path: Path
) -> None:
    for person in samples.people(2, seed=8):
        (tmp_path / person.name).mkdir()
        for number in range(2):
            (tmp_path / person.name / f"{number}.jpg").write_bytes(person.photo(number).jpeg())
    name = f"keras-facenet:{KEY}:{random_weights(512)}"
    done = CliRunner().invoke(main, ["evaluate", "pairs", str(tmp_path), "--model", name, "--json"])
    assert done.exit_code == 0, done.output
    with closing(open_encoder(name)) as encoder:
        faces = encoded_faces(photos_in(tmp_path), encoder)
    figures = pairs_report("", faces).figures
    assert figures["photos_without_a_face"] == 0
    assert json.loads(done.stdout)["auc"] == pytest.approx(figures["auc"])
    assert json.loads(done.stdout)["tar"][0]["threshold"] == pytest.approx(
        figures["tar"][0]["threshold"], abs=1e-5
    )


def test_keras_facenet_cache_is_used_if_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    fetched = tmp_path / "fetched.h5"
    monkeypatch.setattr(keras_facenet, "weights_of", lambda key: fetched)
    assert keras_facenet._published(KEY) == fetched
    theirs = tmp_path / ".keras-facenet" / KEY / f"{KEY}-weights.h5"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"half of it")
    assert keras_facenet._published(KEY) == fetched
    known = replace(CATALOGUE[KEY], sha256=hashlib.sha256(b"half of it").hexdigest())
    monkeypatch.setattr(keras_facenet, "CATALOGUE", {**CATALOGUE, KEY: known})
    assert keras_facenet._published(KEY) == theirs
