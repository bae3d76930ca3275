"""What holds on a CUDA device: ``pytest -m gpu`` where docs/gpu.md's lines have been run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from face2vec import Face2Vec
from face2vec.detection.mtcnn import DetectorSettings
from face2vec.encoding.embed import BATCH
from face2vec.encoding.encoder import Encoder
from face2vec.models import load_model
from face2vec.runtime.select import Runtime, choose_runtime

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def here() -> Iterator[Encoder]:
    encoder = Encoder(load_model("mini"), DetectorSettings(), Runtime("onnxruntime", threads=2))
    yield encoder
    encoder.close()


@pytest.fixture(scope="module")
def there() -> Iterator[Encoder]:
    encoder = Encoder(load_model("mini"), DetectorSettings(), choose_runtime("cuda", threads=2))
    yield encoder
    encoder.close()


@pytest.fixture(scope="module")
def crops(astronaut: Image.Image, hopper: Image.Image) -> np.ndarray:
    """Two faces in many lights: uint8 (70, side, side, 3)."""
    side = load_model("mini").description.input_size
    faces = [astronaut.crop((170, 60, 280, 170)), hopper.crop((180, 120, 340, 280))]
    return np.stack([
        np.asarray(ImageEnhance.Brightness(faces[n % 2].resize((side, side))).enhance(0.5 + n / 70))
        for n in range(70)
    ])  # fmt: skip


def test_auto_takes_cuda() -> None:
    assert choose_runtime().name == "cuda"


@pytest.mark.parametrize("count", [1, 7, BATCH, 70])
def test_cuda_gives_the_embeddings_of_the_processor(
    here: Encoder, there: Encoder, crops: np.ndarray, count: int
) -> None:
    np.testing.assert_allclose(there.embed(crops[:count]), here.embed(crops[:count]), atol=1e-4)


def test_embedding_is_the_same_bits_whatever_is_in_the_batch(
    there: Encoder, crops: np.ndarray
) -> None:
    together = there.embed(crops)
    for row in (0, 31, 32, 69):
        np.testing.assert_array_equal(there.embed(crops[row : row + 1])[0], together[row])
    np.testing.assert_array_equal(there.embed(crops[::-1])[::-1], together)


def test_gallery_built_on_cuda_has_the_faces_of_one_built_on_the_processor(
    faces_folder: Path, tmp_path: Path
) -> None:
    found = {}
    for name in ("cuda", "onnxruntime"):
        with Face2Vec(tmp_path / name, model="mini", runtime=name) as engine:
            engine.add(faces_folder)
            assert engine.info()["runtime"]["name"] == name
            found[name] = [
                (match.face.box, match.photo, match.similarity)
                for one in engine.search(faces_folder / "astronaut.jpg", k=20)
                for match in one.matches
            ]
    assert len(found["cuda"]) > 5
    for one, other in zip(found["cuda"], found["onnxruntime"], strict=True):
        assert one[:2] == other[:2]
        assert one[2] == pytest.approx(other[2], abs=1e-4)
