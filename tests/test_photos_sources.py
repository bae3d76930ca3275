"""What a photo can be given as: every form gives the same pixels."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from face2vec import Face2Vec, PhotoError, SettingsError, open_photo
from face2vec.photos.sources import array_of

PIXELS = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)


def png(pixels: np.ndarray = PIXELS) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


class Tensor:
    """What is used here of torch's tensors."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.dtype, self.shape = array.dtype, array.shape

    def detach(self) -> Tensor:
        return Tensor(self.array)

    def cpu(self) -> Tensor:
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.array


class Elsewhere:
    """An array of another package that NumPy can convert, as those of JAX and TensorFlow."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.dtype, self.shape = array.dtype, array.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.array


def in_zip(folder: Path) -> zipfile.Path:
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.writestr("more/a.png", png())
    return zipfile.Path(folder / "photos.zip") / "more" / "a.png"


def in_file(folder: Path) -> Path:
    (folder / "a.png").write_bytes(png())
    return folder / "a.png"


def at_the_end() -> io.BytesIO:
    stream = io.BytesIO()
    stream.write(png())
    return stream


class Pipe(io.RawIOBase):
    """A stream that cannot be rewound."""

    def __init__(self) -> None:
        self.rest = png()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        some, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
        buffer[: len(some)] = some
        return len(some)


FORMS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "path": (in_file, "{folder}/a.png"),
    "text": (lambda folder: str(in_file(folder)), "{folder}/a.png"),
    "bytes": (lambda _: png(), "<bytes>"),
    "bytearray": (lambda _: bytearray(png()), "<bytes>"),
    "memoryview": (lambda _: memoryview(png()), "<bytes>"),
    "part of a memoryview": (lambda _: memoryview(b"x" + png())[1:], "<bytes>"),
    "stream": (lambda _: io.BytesIO(png()), "<stream>"),
    "stream that was just written": (lambda _: at_the_end(), "<stream>"),
    "stream that cannot be rewound": (lambda _: io.BufferedReader(Pipe()), "<stream>"),
    "open file": (lambda folder: in_file(folder).open("rb"), "{folder}/a.png"),
    "member of a zip": (in_zip, "{folder}/photos.zip/more/a.png"),
    "PIL image": (lambda _: Image.fromarray(PIXELS), "<image>"),
    "array": (lambda _: PIXELS, "<array>"),
    "torch": (lambda _: Tensor(PIXELS), "<array>"),
    "torch, channels first": (lambda _: Tensor(np.moveaxis(PIXELS, 2, 0)), "<array>"),
    "other array": (lambda _: Elsewhere(PIXELS), "<array>"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_photo_gives_the_same_pixels(tmp_path: Path, form: str) -> None:
    make, name = FORMS[form]
    source = make(tmp_path)
    photo = open_photo(source)
    np.testing.assert_array_equal(photo.image, PIXELS)
    assert Path(photo.name) == Path(name.format(folder=tmp_path))
    again = open_photo(photo.source, name="again")
    np.testing.assert_array_equal(again.image, PIXELS)
    if hasattr(source, "close"):
        source.close()


def test_array_with_blue_first_is_turned_round() -> None:
    frame = np.ascontiguousarray(PIXELS[..., ::-1])
    photo = open_photo(frame, bgr=True)
    np.testing.assert_array_equal(photo.image, PIXELS)
    np.testing.assert_array_equal(open_photo(photo.source).image, PIXELS)
    np.testing.assert_array_equal(open_photo(Tensor(frame), bgr=True).image, PIXELS)
    reduced = open_photo(frame, bgr=True, max_side=3)
    np.testing.assert_array_equal(reduced.image, open_photo(PIXELS, max_side=3).image)
    with pytest.raises(SettingsError, match=r"bgr is for arrays only; <bytes> states its own"):
        open_photo(png(), bgr=True)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (lambda _: io.StringIO("text"), SettingsError, r"<stream> gives str .* mode 'rb'"),
        (lambda _: io.BytesIO(), PhotoError, r"<stream>: empty file"),
        (lambda f: in_zip(f).parent / "b.png", PhotoError, r"b\.png: cannot be read"),
        (lambda _: Tensor(PIXELS / 255), SettingsError, r"dtype float64 .*255 \* image"),
    ],
    ids=["text stream", "empty stream", "no such member", "floats"],
)
def test_stream_without_a_photo_is_an_error(
    tmp_path: Path, source: Callable[[Path], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        open_photo(source(tmp_path))


def test_closed_stream_is_an_error() -> None:
    stream = io.BytesIO(png())
    stream.close()
    with pytest.raises(PhotoError, match=r"<stream>: cannot be read \(.*closed"):
        open_photo(stream)


def test_array_of_is_none_for_everything_else() -> None:
    assert array_of(PIXELS) is PIXELS
    for value in (b"12", "a.jpg", [1, 2], Image.new("L", (2, 2)), io.BytesIO()):
        assert array_of(value) is None


def test_every_call_takes_every_form_of_a_photo(
    faces_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    data = (faces_folder / "hopper.jpg").read_bytes()
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("hopper.jpg", data)
    inside = zipfile.Path(tmp_path / "photos.zip") / "hopper.jpg"
    with Face2Vec(tmp_path / "g", model=tiny_model, runtime="onnxruntime", threads=2) as engine:
        engine.add(faces_folder / "hopper.jpg", faces_folder / "astronaut.jpg")
        (face,) = engine.encode(data)
        forms = (io.BytesIO(data), bytearray(data), memoryview(data), inside)
        for faces in engine.bulk_encode(forms):
            assert [one.box for one in faces] == [face.box]
            assert np.array_equal(faces[0].embedding, face.embedding)
        for form in (io.BytesIO(data), bytearray(data), inside):
            assert np.array_equal(engine.encode(form)[0].embedding, face.embedding)
            (result,) = engine.search(form, k=1)
            assert result.matches[0].photo == str(faces_folder / "hopper.jpg")
            assert result.thumbnail() is not None
        (result,) = engine.search(Tensor(face.embedding), k=1)
        assert result.matches[0].similarity == pytest.approx(1, abs=1e-6)
