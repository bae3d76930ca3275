"""DeepFace's models: the real package with random weights, and what is asked of it.

The tests marked ``deepface`` run DeepFace's own alignment, crop, pixels and ONNX backend; only
its detector, whose file is a download, is replaced by one that knows where the faces were drawn.
The others use a stand-in for the package and say nothing of DeepFace itself, but of what is
passed to it and made of its answers.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import needs
from numpy.typing import NDArray
from PIL import Image

from face2vec import samples
from face2vec.errors import ModelError, UnknownModelError
from face2vec.evaluation.encoders import deepface, open_encoder

DRAWN = samples.group_photo(samples.people(3, seed=4), 1)


@pytest.fixture(autouse=True)
def _nothing_built() -> Iterator[None]:
    deepface._built.cache_clear()
    yield
    deepface._built.cache_clear()


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawn people side by side, saved without loss."""
    path = tmp_path_factory.mktemp("group") / "three.png"
    Image.fromarray(DRAWN.image).save(path)
    return path


# --- the real package -----------------------------------------------------------------------


class KnowingDetector:
    """A detector with DeepFace's interface: boxes and eyes of `DRAWN`, with its black border."""

    def detect_faces(self, image: NDArray[np.uint8]) -> list[Any]:
        from deepface.models.Detector import FacialAreaRegion

        height, width = DRAWN.image.shape[:2]
        if image.shape != (height + 2 * (height // 2), width + 2 * (width // 2), 3):
            return []
        across, down = width // 2, height // 2
        regions = []
        for face in DRAWN.faces:
            left, top, right, bottom = (int(value) for value in face.box)
            # DeepFace names eyes from the person's own view.
            (x, y), (other_x, other_y) = face.landmarks[:2].astype(int).tolist()
            regions.append(
                FacialAreaRegion(
                    x=left + across, y=top + down, w=right - left, h=bottom - top,
                    left_eye=(other_x + across, other_y + down),
                    right_eye=(x + across, y + down), confidence=0.9,
                )
            )  # fmt: skip
        return regions


def write_network(path: Path, side: int, dimension: int) -> Path:
    """A random projection of the reduced crop, with the inputs and outputs of DeepFace's graphs."""
    from onnx import TensorProto, helper, numpy_helper, save

    cells = side // 8
    inputs = 3 * cells * cells
    weights = np.random.default_rng(dimension).standard_normal((inputs, dimension), np.float32)
    nodes = [
        helper.make_node("Transpose", ["crops"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["turned"], ["small"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["small"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["embeddings"]),
    ]
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["n", side, side, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", dimension])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)
    return path


NETWORKS = (
    ("DeepFace", "VGGFace2_DeepFace_weights_val-0.9034.onnx", 152, 4096),
    ("Facenet512", "facenet512_weights.onnx", 160, 512),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder with random weights for the real DeepFace, ONNX Runtime, and the detector."""
    needs("deepface", "deepface", "werkzeug")
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("deepface")
        patch.setenv("DEEPFACE_HOME", str(home))
        patch.setenv("DEEPFACE_BACKEND_ENGINE", "onnx")
        for _, file, side, dimension in NETWORKS:
            write_network(home / ".deepface" / "weights" / file, side, dimension)
        modeling = importlib.import_module("deepface.modules.modeling")
        detectors = modeling.AVAILABLE_MODELS["face_detector"]
        source = {"any": f"{KnowingDetector.__module__}.{KnowingDetector.__qualname__}"}
        patch.setitem(detectors, "opencv", source)
        yield home / ".deepface" / "weights"


@pytest.mark.deepface
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("model", "file", "side", "dimension"), NETWORKS)
def test_deepface_encoder_equals_represent(
    model: str, file: str, side: int, dimension: int, home: Path, group: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from deepface import DeepFace

    onnx_models = importlib.import_module(
        "deepface.models.facial_recognition.onnx.OnnxFacialRecognition"
    )
    fed: list[NDArray[np.float32]] = []
    real = onnx_models.run_session
    monkeypatch.setattr(
        onnx_models, "run_session", lambda session, image: fed.append(image) or real(session, image)
    )
    encoder = open_encoder(f"deepface:{model}")
    (photo,) = encoder.encode([group])
    theirs = DeepFace.represent(str(group), model_name=model)
    assert fed[0].shape == (3, side, side, 3)
    np.testing.assert_array_equal(fed[0], fed[1])
    assert len(photo.faces) == len(theirs) == 3
    for one, other, drawn in zip(photo.faces, theirs, DRAWN.faces, strict=True):
        expected = np.array(other["embedding"])
        assert expected.shape == (dimension,)
        np.testing.assert_allclose(one.embedding, expected / np.linalg.norm(expected), atol=1e-6)
        np.testing.assert_allclose(one.box, drawn.box, atol=1)

    assert (encoder.dimension, encoder.crop_size) == (dimension, (side, side))
    assert encoder.weights == hashlib.sha256((home / file).read_bytes()).hexdigest()
    assert encoder.weights_bytes == (home / file).stat().st_size
    assert encoder.runs_on.endswith(", onnx")
    crops = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    together = encoder.embed(crops)
    # The network expects BGR, 0…1.
    np.testing.assert_allclose(fed[2], crops[..., ::-1] / 255, atol=1e-6)
    np.testing.assert_allclose(encoder.embed(crops[:1]), together[:1], atol=1e-5)


@pytest.mark.deepface
@pytest.mark.filterwarnings("ignore")
def test_deepface_encoder_returns_no_faces_for_a_photo_without_a_face(home: Path) -> None:
    encoder = open_encoder("deepface:Facenet512")
    (photo,) = encoder.encode([np.zeros((80, 60, 3), np.uint8)])
    assert (photo.faces, photo.failure, photo.width, photo.height) == ((), "", 60, 80)


@pytest.mark.deepface
@pytest.mark.filterwarnings("ignore")
def test_deepface_encoder_lists_available_models_and_detectors(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownModelError, match=r"no model 'Nope'; it has: .*Facenet512.*DeepFace"):
        open_encoder("deepface:Nope")
    with pytest.raises(UnknownModelError, match=r"no detector 'nope'; it has: .*opencv.*mtcnn"):
        open_encoder("deepface:Facenet512:nope")
    utils = importlib.import_module("deepface.commons.weight_utils")

    def unreachable(url: str) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(utils, "ensure_source_is_reachable", unreachable)
    with pytest.raises(ModelError, match=r"cannot build OpenFace: .*openface.*no network"):
        open_encoder("deepface:OpenFace")


# --- a stand-in -----------------------------------------------------------------------------


FaceNotDetected = type("FaceNotDetected", (Exception,), {})


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """A stand-in package with DeepFace's names that records calls of ``represent``."""
    asked: list[dict[str, Any]] = []
    (tmp_path / "weights.h5").write_bytes(b"weights")

    def represent(image: Any, **arguments: Any) -> Any:
        asked.append({"image": image, **arguments})
        if isinstance(image, list):
            rows = [[{"embedding": [float(one[0, 0, 0]), 0.0]}] for one in image]
            return rows[0] if len(rows) == 1 else rows
        if not image.any():
            raise FaceNotDetected
        area = {"x": 1, "y": 2, "w": 3, "h": 4}
        return [{"embedding": [3.0, 4.0], "facial_area": area, "face_confidence": 0.9}]

    def build_model(task: str, name: str) -> Any:
        if name == "DeepFace":
            raise ValueError("DeepFace model requires LocallyConnected2D")
        if task == "facial_recognition":
            weight_utils.download_weights_if_necessary("weights.h5")
        return SimpleNamespace(output_shape=2, input_shape=(47, 55))

    weight_utils = SimpleNamespace(
        download_weights_if_necessary=lambda name: str(tmp_path / name),
    )
    parts = {
        "deepface": {"__version__": "9"},
        "deepface.DeepFace": {"represent": represent},
        "deepface.modules.modeling": {
            "AVAILABLE_MODELS": {
                "facial_recognition": {"DeepID": {}, "DeepFace": {}},
                "face_detector": {"opencv": {}, "mtcnn": {}},
            },
            "build_model": build_model,
        },
        "deepface.commons.backend_utils": {"get_backend_engine": lambda: "tensorflow"},
    }
    for name, values in parts.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "deepface.commons.weight_utils", weight_utils)  # type: ignore[arg-type]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return asked


def test_represent_is_called_with_bgr_and_its_defaults(
    stand_in: list[dict[str, Any]],
) -> None:
    image = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    encoder = open_encoder("deepface:DeepID:mtcnn")
    photo, empty = encoder.encode([image, np.zeros_like(image)])
    np.testing.assert_array_equal(stand_in[0].pop("image"), image[:, :, ::-1])
    assert stand_in[0] == {"model_name": "DeepID", "detector_backend": "mtcnn"}
    assert photo.faces[0].box == (1, 2, 4, 6)
    np.testing.assert_allclose(photo.faces[0].embedding, [0.6, 0.8])
    assert (empty.faces, empty.failure) == ((), "")
    assert encoder.name == "deepface:DeepID:mtcnn"
    assert (encoder.dimension, encoder.crop_size) == (2, (55, 47))
    assert encoder.weights == hashlib.sha256(b"weights").hexdigest()
    assert encoder.weights_bytes == 7
    assert encoder.runs_on == "deepface 9, tensorflow"


@pytest.mark.parametrize("count", [1, 2])
def test_embed_calls_represent_once_without_a_detector(
    count: int, stand_in: list[dict[str, Any]]
) -> None:
    encoder = open_encoder("deepface:DeepID")
    crops = np.full((count, 55, 47, 3), (9, 5, 2), np.uint8)
    np.testing.assert_allclose(encoder.embed(crops), [[1, 0]] * count)
    (asked,) = stand_in
    assert (len(asked["image"]), asked["detector_backend"]) == (count, "skip")
    assert asked["image"][0][0, 0].tolist() == [2, 5, 9]


def test_unsupported_tensorflow_layer_suggests_another_backend(
    stand_in: list[dict[str, Any]],
) -> None:
    with pytest.raises(
        ModelError, match=r"LocallyConnected2D; or set DEEPFACE_BACKEND_ENGINE=onnx"
    ):
        open_encoder("deepface:DeepFace")
