"""`Encoder`: encoding of one photo and of streams, and models that do not match their networks."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from face2vec.detection.mtcnn import DetectorSettings
from face2vec.encoding.align import cut_crops
from face2vec.encoding.encoder import BATCH, CHUNK, Encoder
from face2vec.errors import ModelError, PhotoError
from face2vec.models import load_model, standardize
from face2vec.photos.decode import open_photo
from face2vec.runtime.select import Runtime
from face2vec.types import Face, Photo

THREADS = 2


def make(model: Path, settings: DetectorSettings | None = None) -> Encoder:
    return Encoder(
        load_model(model), settings or DetectorSettings(), Runtime("onnxruntime", threads=THREADS)
    )


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Iterator[Encoder]:
    encoder = make(tiny_model)
    yield encoder
    encoder.close()


@pytest.fixture
def variant(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """A factory of copies of the tiny model with a changed description or changed weights."""

    def write(change: Callable[[np.ndarray], np.ndarray] | None = None, **values: object) -> Path:
        path = tmp_path / "variant.onnx"
        shutil.copy(tiny_model, path)
        if change is not None:
            model = onnx.load(path)
            weights = change(numpy_helper.to_array(model.graph.initializer[0]))
            model.graph.initializer[0].CopyFrom(
                numpy_helper.from_array(weights.astype(np.float32), "weights")
            )
            onnx.save(model, path)
        description = json.loads(tiny_model.with_suffix(".json").read_text(encoding="utf-8"))
        path.with_suffix(".json").write_text(json.dumps({**description, **values}), "utf-8")
        return path

    return write


def values(faces: list[Face] | tuple[Face, ...]) -> list[tuple[object, ...]]:
    """All values of faces, for bit-exact comparison."""
    return [
        (f.box, f.landmarks, f.confidence, f.quality, np.asarray(f.embedding).tobytes())
        for f in faces
    ]


def random_crops(number: int, side: int = 112) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (number, side, side, 3), np.uint8)


# --- one photo ------------------------------------------------------------------------------


def test_encode_normalises_the_output_of_the_network(encoder: Encoder, faces_folder: Path) -> None:
    photo = encoder.read(faces_folder / "both.jpg")
    faces = encoder.encode(photo)
    assert len(faces) == 2
    description = encoder.model.description
    network = Runtime("onnxruntime").load(encoder.model.path)
    for face in faces:
        assert face.embedding is not None
        assert (face.embedding.dtype, face.embedding.shape) == (np.float32, (64,))
        assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-6)
        pixels = standardize(cut_crops(photo, [face], description), description)
        raw = network.run({"crops": pixels})[0][0]
        np.testing.assert_allclose(face.embedding, raw / np.linalg.norm(raw), atol=1e-5)
    assert faces[0].confidence >= faces[1].confidence


def test_encode_returns_no_faces_for_a_photo_without_a_face(
    encoder: Encoder, faces_folder: Path
) -> None:
    assert encoder.encode(encoder.read(faces_folder / "nobody.jpg")) == []


def test_embeddings_of_one_face_are_more_similar_than_of_two(
    encoder: Encoder, faces_folder: Path
) -> None:
    names = ("astronaut.jpg", "more/astronaut-darker.jpg", "hopper.jpg")
    one, darker, other = (
        encoder.encode(encoder.read(faces_folder / name))[0].embedding for name in names
    )
    assert one is not None
    assert darker is not None
    assert one @ darker > 0.95
    assert one @ other < one @ darker - 0.1


def test_quality_falls_with_the_detail_of_the_crop(encoder: Encoder, hopper: Image.Image) -> None:
    (large,) = encoder.encode(open_photo(hopper))
    (small,) = encoder.encode(open_photo(hopper.resize((171, 200))))
    assert large.quality is not None
    assert small.quality is not None
    assert large.quality > 0.8
    # Eyes 29 pixels apart, the crop's 41.
    assert small.quality / large.quality == pytest.approx(0.67, abs=0.12)


def test_mirror_averages_the_embeddings_of_crop_and_mirror_image(
    encoder: Encoder, variant: Callable[..., Path]
) -> None:
    crops = random_crops(5)
    crops[:, :, 56:] //= 3  # not the same on both sides
    mirroring = make(variant(mirror=True))
    description = encoder.model.description
    network = Runtime("onnxruntime").load(encoder.model.path)
    sides = [
        network.run({"crops": standardize(np.ascontiguousarray(part), description)})[0]
        for part in (crops, crops[:, :, ::-1])
    ]
    total = sides[0] + sides[1]
    wanted = total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(mirroring.embed(crops), wanted, atol=1e-5)
    assert not np.allclose(encoder.embed(crops), wanted, atol=1e-2)
    np.testing.assert_allclose(
        mirroring.embed(crops), mirroring.embed(crops[:, :, ::-1]), atol=1e-5
    )
    mirroring.close()


@pytest.mark.parametrize("number", [1, 2, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 5])
def test_embed_of_many_crops_equals_embed_of_each(number: int, encoder: Encoder) -> None:
    crops = random_crops(number)
    together = encoder.embed(crops)
    assert together.shape == (number, 64)
    for row in {0, 1 % number, number // 2, number - 1}:
        np.testing.assert_array_equal(together[row], encoder.embed(crops[row : row + 1])[0])


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, 2 * BATCH + 5])
def test_embed_in_whole_batches_gives_the_same_embeddings(
    tiny_model: Path, encoder: Encoder, count: int
) -> None:
    crops = random_crops(count)
    seen = []
    whole = make(tiny_model)
    whole._embedder.whole_batches = True  # as on CUDA
    run = whole._embedder._network.run
    whole._embedder._network.run = lambda inputs: seen.append(inputs["crops"].shape) or run(inputs)  # type: ignore[method-assign,func-returns-value]
    np.testing.assert_allclose(whole.embed(crops), encoder.embed(crops), atol=1e-6)
    assert seen == [(BATCH, 3, 112, 112)] * -(-count // BATCH)
    whole.close()


def test_embed_of_no_crops_is_empty(encoder: Encoder) -> None:
    assert encoder.embed(random_crops(0)).shape == (0, 64)


def test_faces_of_a_reduced_photo_are_in_pixels_of_the_full_photo(
    encoder: Encoder, tiny_model: Path, hopper: Image.Image
) -> None:
    (wanted,) = encoder.encode(open_photo(hopper))
    large = hopper.resize((5 * hopper.width, 5 * hopper.height), Image.Resampling.BICUBIC)
    reducing = make(tiny_model, DetectorSettings(max_side=hopper.height))
    photo = reducing.read(np.asarray(large))
    assert (photo.scale, photo.width, photo.image.shape) == (0.2, 2560, (600, 512, 3))
    (face,) = reducing.encode(photo)
    reducing.close()
    np.testing.assert_allclose(face.box, 5 * np.array(wanted.box), atol=0.03 * face.width)
    landmarks = (np.array(wanted.landmarks) + 0.5) * 5 - 0.5
    np.testing.assert_allclose(face.landmarks, landmarks, atol=0.02 * face.width)
    assert face.embedding is not None
    assert float(face.embedding @ np.asarray(wanted.embedding)) > 0.97


def test_read_refuses_more_pixels_than_allowed(tiny_model: Path) -> None:
    encoder = Encoder(load_model(tiny_model), DetectorSettings(), Runtime("onnxruntime"), 10_000)
    with pytest.raises(PhotoError, match="too many pixels"):
        encoder.read(np.zeros((101, 100, 3), np.uint8), "scan")
    assert encoder.read(np.zeros((100, 100, 3), np.uint8)).width == 100
    encoder.close()


def reduced(hopper: Image.Image, path: Path) -> Photo:
    """A reduced photo with a small face, so that its crop needs full resolution."""
    wide = Image.new("RGB", (1800, 1200))
    wide.paste(hopper.resize((256, 300)), (700, 500))
    wide.save(path)
    return open_photo(path, max_side=900)


def test_encode_reports_a_photo_deleted_in_between(
    encoder: Encoder, hopper: Image.Image, tmp_path: Path
) -> None:
    photo = reduced(hopper, tmp_path / "wide.png")
    (face,) = encoder.encode(photo)
    assert face.width == pytest.approx(87, abs=12)
    (tmp_path / "wide.png").unlink()
    with pytest.raises(PhotoError, match=r"wide\.png: missing"):
        encoder.encode(photo)


# --- many photos ----------------------------------------------------------------------------


def test_stream_is_bit_identical_to_encode_and_in_order(
    encoder: Encoder, faces_folder: Path
) -> None:
    paths = sorted(path for path in faces_folder.rglob("*") if path.is_file()) * 3
    encoded = list(encoder.stream(paths, encoder.read))
    assert [one.item for one in encoded] == paths
    for one in encoded:
        if one.item.name in ("broken.jpg", "empty.jpg"):
            assert isinstance(one.error, PhotoError)
            assert (one.faces, one.width, one.height) == ((), 0, 0)
            continue
        photo = encoder.read(one.item)
        assert one.error is None
        assert (one.width, one.height) == (photo.width, photo.height)
        assert values(one.faces) == values(encoder.encode(photo))
    reasons = {one.item.name: one.error.reason for one in encoded if one.error}
    assert reasons == {"broken.jpg": "truncated", "empty.jpg": "empty file"}


def test_stream_does_not_depend_on_how_photos_are_grouped(
    encoder: Encoder, faces_folder: Path
) -> None:
    paths = [faces_folder / name for name in ("both.jpg", "hopper.jpg", "astronaut.jpg")]
    alone = {path: values(encoder.encode(encoder.read(path))) for path in paths}
    many = [paths[n % 3] for n in (0, 1, 1, 2, 0, 2, 2, 2, 1, 0, 0)]
    for one in encoder.stream(many, encoder.read):
        assert values(one.faces) == alone[one.item]


def test_stream_of_large_photos_detects_each_alone(
    encoder: Encoder, faces_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("face2vec.encoding.extract.CHUNK_PIXELS", 700_000)
    paths = [faces_folder / name for name in ("both.jpg", "hopper.jpg", "astronaut.jpg")] * 2
    for one in encoder.stream(paths, encoder.read):
        assert values(one.faces) == values(encoder.encode(encoder.read(one.item)))


def test_stream_reports_a_photo_deleted_in_between(
    encoder: Encoder, hopper: Image.Image, tmp_path: Path
) -> None:
    def read_and_lose(path: Path) -> Photo:
        photo = reduced(hopper, path)
        if path.name == "b.png":
            path.unlink()
        return photo

    paths = [tmp_path / f"{name}.png" for name in "abc"]
    first, lost, last = encoder.stream(paths, read_and_lose)
    assert lost.error is not None
    assert (lost.error.reason, lost.faces) == ("missing", ())
    assert values(first.faces) == values(last.faces)
    assert len(first.faces) == 1


def test_stream_raises_other_errors_and_stays_usable(encoder: Encoder, faces_folder: Path) -> None:
    def read(number: int) -> Photo:
        if number == 5:
            raise ZeroDivisionError("five")
        return encoder.read(faces_folder / "nobody.jpg")

    with pytest.raises(ZeroDivisionError, match="five"):
        list(encoder.stream(range(50), read))
    assert [one.item for one in encoder.stream(range(6, 30), read)] == list(range(6, 30))


def test_stream_consumes_items_lazily(encoder: Encoder) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        for number in count():
            taken = number + 1
            yield number

    image = np.zeros((20, 20, 3), np.uint8)
    stream = encoder.stream(endless(), lambda _: open_photo(image))
    assert taken == 0
    in_hand = 2 * THREADS * CHUNK
    for seen, one in enumerate(islice(stream, 100), 1):
        assert one.item == seen - 1
        assert seen <= taken <= seen + in_hand + CHUNK
    assert isinstance(stream, Iterator)
    stream.close()  # type: ignore[attr-defined]
    assert taken <= 100 + in_hand + CHUNK


def test_stream_gives_the_first_result_before_it_consumes_a_second_item(encoder: Encoder) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1, 60):
            taken = number
            yield number

    ahead = []
    for returned, encoded in enumerate(encoder.stream(items(), lambda _: None), 1):
        assert encoded.item == returned
        ahead.append(taken - returned)
    assert len(ahead) == 59
    assert ahead[0] == 0
    assert all(many <= returned for returned, many in enumerate(ahead))
    assert max(ahead) > 8  # later, work is kept ready for all threads


def test_stream_gives_its_threads_whole_chunks_after_the_first_small_ones(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    really = encoder._encode_chunk

    def noted(items: list[int], **options: Any) -> Any:
        sizes.append(len(items))
        return really(items, **options)

    def skipped(_item: int) -> None:
        time.sleep(0.002)

    monkeypatch.setattr(encoder, "_encode_chunk", noted)
    assert len(list(encoder.stream(iter(range(600)), skipped))) == 600
    assert sum(sizes) == 600
    assert sizes[0] == 1
    assert np.mean([size == CHUNK for size in sizes[len(sizes) // 2 : -1]]) > 0.9


def test_stream_of_a_slow_source_gives_each_result_before_the_next_item(encoder: Encoder) -> None:
    events = []

    def items() -> Iterator[int]:
        for number in range(5):
            time.sleep(0.2)
            events.append(f"item {number}")
            yield number

    for encoded in encoder.stream(items(), lambda _: None):
        events.append(f"result {encoded.item}")
    assert events == [f"{what} {number}" for number in range(5) for what in ("item", "result")]


def test_stream_closed_early_waits_for_running_reads(encoder: Encoder) -> None:
    reading: set[int] = set()
    more_than_the_first_chunk = threading.Event()

    def read(item: int) -> None:
        reading.add(item)
        if item >= CHUNK:
            more_than_the_first_chunk.set()
            time.sleep(0.1)
        reading.remove(item)

    for one in encoder.stream(range(20 * CHUNK), read):
        if one.item == CHUNK:
            assert more_than_the_first_chunk.wait(60)
            break
    else:
        pytest.fail("the stream ended")
    del one
    assert not reading
    time.sleep(0.3)  # and no other read starts
    assert not reading


def test_stream_of_nothing_is_empty(encoder: Encoder) -> None:
    assert list(encoder.stream([], encoder.read)) == []


def test_stream_raises_errors_of_the_items_iterator(encoder: Encoder) -> None:
    def failing() -> Iterator[Path]:
        yield Path("gone.jpg")
        raise OSError("the disk went")

    with pytest.raises(OSError, match="the disk went"):
        list(encoder.stream(failing(), encoder.read))


# --- models that do not match their descriptions --------------------------------------------


def test_embeddings_of_another_dimension_are_refused(variant: Callable[..., Path]) -> None:
    encoder = make(variant(dimension=63))
    with pytest.raises(ModelError, match=r"'variant' gave .*\(1, 64\) .*\(1, 63\)"):
        encoder.embed(random_crops(1))
    encoder.close()


@pytest.mark.parametrize("wrong", [{"input_size": 96}, {"layout": "NHWC"}], ids=str)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_input_of_another_shape_is_refused_with_a_one_line_error(
    runtime: str, wrong: dict[str, object], variant: Callable[..., Path]
) -> None:
    model = load_model(variant(**wrong))
    encoder = Encoder(model, DetectorSettings(), Runtime(runtime))
    with pytest.raises(ModelError, match="input") as caught:
        encoder.embed(random_crops(1, model.description.input_size))
    assert "\n" not in str(caught.value)
    encoder.close()


@pytest.mark.parametrize("number", [np.nan, np.inf, 0.0])
def test_embedding_of_zero_or_infinite_length_is_refused(
    number: float, variant: Callable[..., Path], faces_folder: Path
) -> None:
    encoder = make(variant(change=lambda weights: np.full_like(weights, number)))
    with pytest.raises(ModelError, match="zero or infinite length"):
        encoder.embed(random_crops(1))
    with pytest.raises(ModelError, match="zero or infinite length"):
        list(encoder.stream([faces_folder / "hopper.jpg"], encoder.read))
    encoder.close()
