"""Alignment: the similarity transform, crops by landmarks and by margin, and reduced photos."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from face2vec.encoding import align
from face2vec.encoding.align import crop_detail, cut_crops, similarity_transform
from face2vec.models import FIVE_POINTS, ModelDescription
from face2vec.photos import decode
from face2vec.photos.decode import full_resolution, open_photo
from face2vec.types import Box, Face, Photo

SIDE = 112
LANDMARKS = ModelDescription("aligned", 8, SIDE, "landmarks", FIVE_POINTS)
FACENET = ModelDescription("margin", 8, 160, "margin", margin=44, margin_size=182)
DOTS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]


def placed(scale: float, angle: float, centre: tuple[float, float]) -> np.ndarray:
    """The template's five points scaled, rotated about their mean, and moved to a centre."""
    points = np.array(FIVE_POINTS) * SIDE
    points = (points - points.mean(axis=0)) * scale
    turn = np.radians(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ matrix.T + centre


def face_with(points: np.ndarray, box: Box = (0, 0, 10, 10)) -> Face:
    return Face(box, tuple((float(x), float(y)) for x, y in points), 0.99)  # type: ignore[arg-type]


def photo_of(image: np.ndarray) -> Photo:
    return Photo("test", image, image.shape[1], image.shape[0])


def crop_of(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    return cut_crops(photo_of(image), [face_with(points)], LANDMARKS)[0]


def gradient(width: int, height: int) -> np.ndarray:
    """An image whose red is x and whose green is y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)


def photo_like_noise(width: int, height: int, cell: int = 8) -> Image.Image:
    shape = (height // cell, width // cell, 3)
    small = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


# --- the transform --------------------------------------------------------------------------


def linear_least_squares(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(x, y) → (a x − b y + s, b x + a y + t), with a, b, s, t from a linear system."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    a, b, s, t = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return np.array([[a, -b, s], [b, a, t]])


@pytest.mark.parametrize("angle", [0, 17, 90, 180, -120])
@pytest.mark.parametrize("scale", [0.01, 1, 37])
def test_similarity_transform_recovers_a_known_transform(scale: float, angle: float) -> None:
    turn = np.radians(angle)
    wanted = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    source = np.random.default_rng(0).uniform(-50, 50, (5, 2))
    matrix = similarity_transform(source, source @ wanted.T + (12, -700))
    np.testing.assert_allclose(matrix, np.column_stack([wanted, (12, -700)]), atol=1e-9 * scale)


def test_similarity_transform_is_the_least_squares_solution() -> None:
    rng = np.random.default_rng(3)
    for count in (2, 3, 5, 5, 5, 20):
        source, target = rng.uniform(0, 100, (2, count, 2))
        np.testing.assert_allclose(
            similarity_transform(source, target), linear_least_squares(source, target), atol=1e-8
        )


def test_similarity_transform_is_never_a_reflection() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        source = rng.uniform(0, 100, (5, 2))
        mirrored = source * (-1, 1) + rng.normal(0, 5, (5, 2))
        matrix = similarity_transform(source, mirrored)
        assert np.linalg.det(matrix[:, :2]) > 0
        np.testing.assert_allclose(matrix, linear_least_squares(source, mirrored), atol=1e-8)


# --- by landmarks ---------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0, 25, -80, 180])
@pytest.mark.parametrize("scale", [0.5, 1, 1.9, 2.5, 4, 10])
def test_landmark_crop_maps_landmarks_to_the_template(scale: float, angle: float) -> None:
    side = int(SIDE * scale * 1.6) + 10
    points = placed(scale, angle, (side / 2 + 0.3, side / 2 - 0.2))
    y, x = np.mgrid[:side, :side]
    image = np.zeros((side, side, 3), np.uint8)
    for (px, py), colour in zip(points, DOTS, strict=True):
        share = np.clip(6 * scale + 0.5 - np.hypot(x - px, y - py), 0, 1)[..., None]
        image[:] = (1 - share) * image + share * np.array(colour)
    crop = crop_of(image, points).astype(float)
    v, u = np.mgrid[:SIDE, :SIDE]
    away = []
    for (tx, ty), colour in zip(np.array(FIVE_POINTS) * SIDE, DOTS, strict=True):
        dot = np.linalg.norm(crop - colour, axis=-1) < 125  # pixels mostly covered by the dot
        assert dot.sum() == pytest.approx(np.pi * 6**2, rel=0.25)
        away.append((u[dot].mean() - tx, v[dot].mean() - ty))
    np.testing.assert_allclose(away, 0, atol=0.5)
    np.testing.assert_allclose(np.mean(away, axis=0), 0, atol=0.2)  # no shift of half a pixel


def test_landmark_crop_of_a_face_at_the_template_equals_the_photo() -> None:
    image = np.asarray(photo_like_noise(SIDE + 24, SIDE + 16))
    crop = crop_of(image, np.array(FIVE_POINTS) * SIDE + (9, 5))
    wanted = image[5 : 5 + SIDE, 9 : 9 + SIDE].astype(int)
    np.testing.assert_allclose(crop, wanted, atol=1)  # Pillow rounds down


@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_landmark_crop_mirrors_the_photo_beyond_its_border(
    corner: tuple[int, int],
) -> None:
    image = np.asarray(photo_like_noise(96, 80))
    points = placed(1.0, 20, (96 * corner[0], 80 * corner[1]))
    crop = crop_of(image, points)
    wide = np.pad(image, [(79, 79), (95, 95), (0, 0)], mode="reflect")
    np.testing.assert_array_equal(crop, crop_of(wide, np.add(points, (95, 79))))
    white = np.full((80, 96, 3), 255, np.uint8)
    assert crop_of(white, points).min() == 255


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 3)])
def test_landmark_crop_mirrors_a_small_photo_repeatedly(
    shape: tuple[int, int],
) -> None:
    image = np.full((*shape, 3), (10, 200, 90), np.uint8)
    crop = crop_of(image, placed(1.0, 0, (shape[1] / 2, shape[0] / 2)))
    assert (crop == (10, 200, 90)).all()


@pytest.mark.parametrize("angle", [0, 30])
@pytest.mark.parametrize("scale", [8, 4.4])
def test_landmark_crop_averages_a_fine_checkerboard_to_grey(scale: float, angle: float) -> None:
    y, x = np.mgrid[:1300, :1300]
    board = np.repeat(255 * ((x + y) % 2).astype(np.uint8)[..., None], 3, axis=-1)
    crop = crop_of(board, placed(scale, angle, (650, 650)))
    np.testing.assert_allclose(crop.astype(float), 127.5, atol=3)


def test_crop_detail_is_photo_pixels_per_crop_pixel() -> None:
    for scale in (0.4, 1.0, 6.5):
        face = face_with(placed(scale, 40, (200, 100)))
        assert crop_detail(face, LANDMARKS) == pytest.approx(scale)
    # FaceNet's box covers 138 of 182 pixels, so the 160 pixels of the crop show 160 / 138 of it.
    face = Face((10, 20, 10 + 138, 20 + 276), face.landmarks, 0.9)
    assert crop_detail(face, FACENET) == pytest.approx(138 / (160 * 138 / 182))


# --- by a margin ----------------------------------------------------------------------------

# The box is doubled, then its centre half is shown: the box itself, 100 pixels wide.
DOUBLED = ModelDescription("doubled", 8, 100, "margin", margin=100, margin_size=200)


@pytest.mark.parametrize(
    ("box", "shown"),
    [
        ((40, 60, 80, 100), (40, 60, 80, 100)),
        ((40, 60, 80, 80), (40, 60, 80, 80)),
        # Doubled: −20…60; clipped: 0…60; then the centre half.
        ((0, 0, 40, 40), (15, 15, 45, 45)),
        # Doubled: 180…260 and 110…190; clipped at 250 and 180.
        ((200, 130, 240, 170), (197.5, 127.5, 232.5, 162.5)),
        # The whole photo: doubled and clipped it is still the whole photo.
        ((0, 0, 250, 180), (62.5, 45, 187.5, 135)),
    ],
)
def test_margin_crop_shows_the_expected_region(box: Box, shown: Box) -> None:
    face = Face(box, ((0, 0),) * 5, 0.9)  # type: ignore[arg-type]
    crop = cut_crops(photo_of(gradient(250, 180)), [face], DOUBLED)[0].astype(float)
    left, top, right, bottom = shown
    middle = np.arange(100) + 0.5
    x = left + middle * (right - left) / 100 - 0.5
    y = top + middle * (bottom - top) / 100 - 0.5
    inside = slice(3, -3)
    np.testing.assert_allclose(crop[inside, inside, 0], np.tile(x, (94, 1))[:, inside], atol=0.75)
    np.testing.assert_allclose(
        crop[inside, inside, 1], np.tile(y[:, None], (1, 94))[inside], atol=0.75
    )


@pytest.mark.parametrize("box", [(100.5, 90.25, 210, 230.5), (20, 10, 300, 390), (0, 0, 64, 80)])
def test_margin_crop_equals_stretching_and_centre_cropping(box: Box) -> None:
    image = photo_like_noise(400, 400)
    left, top, right, bottom = box
    grow = 182 / (182 - 44)
    half = (right - left) / 2 * grow, (bottom - top) / 2 * grow
    x, y = (left + right) / 2, (top + bottom) / 2
    edges = (
        *(max(x - half[0], 0), max(y - half[1], 0)),
        *(min(x + half[0], 400), min(y + half[1], 400)),
    )
    stretched = image.resize((182, 182), Image.Resampling.BILINEAR, box=edges)
    wanted = np.asarray(stretched.crop((11, 11, 171, 171))).astype(int)
    face = Face(box, ((0, 0),) * 5, 0.9)  # type: ignore[arg-type]
    crop = cut_crops(photo_of(np.asarray(image)), [face], FACENET)[0]
    np.testing.assert_allclose(crop[2:-2, 2:-2], wanted[2:-2, 2:-2], atol=2)


# --- photos read at reduced size ------------------------------------------------------------


def as_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


@pytest.mark.parametrize("model", [LANDMARKS, FACENET], ids=["landmarks", "margin"])
def test_small_face_in_a_reduced_photo_is_cut_from_the_full_photo(model: ModelDescription) -> None:
    data = as_png(photo_like_noise(1200, 900))
    reduced, full = open_photo(data, max_side=300), open_photo(data)
    assert (reduced.scale, full.scale) == (0.25, 1)
    face = face_with(placed(2, 12, (600, 400)), (480, 280, 720, 560))
    np.testing.assert_array_equal(cut_crops(reduced, [face], model), cut_crops(full, [face], model))


@pytest.mark.parametrize("model", [LANDMARKS, FACENET], ids=["landmarks", "margin"])
def test_large_face_in_a_reduced_photo_is_cut_from_the_reduced_image(
    model: ModelDescription,
) -> None:
    image = photo_like_noise(1600, 1600, cell=50)
    data = as_png(image)
    full, reduced = open_photo(data), open_photo(data, max_side=800)
    reduced = Photo(reduced.name, reduced.image, 1600, 1600, reduced.scale, source=None)
    face = face_with(placed(6, -15, (800, 790)), (420, 380, 1160, 1200))
    crop, wanted = cut_crops(reduced, [face], model), cut_crops(full, [face], model)
    difference = np.abs(crop.astype(int) - wanted.astype(int))
    shifted = np.roll(wanted, 1, axis=2).astype(int)
    assert difference.mean() < np.abs(shifted - wanted).mean() / 5


def test_crops_of_several_faces_equal_single_crops() -> None:
    image = np.asarray(photo_like_noise(500, 400))
    faces = [face_with(placed(s, a, c)) for s, a, c in ((1, 0, (90, 99)), (2, 40, (300, 200)))]
    crops = cut_crops(photo_of(image), faces, LANDMARKS)
    assert (crops.shape, crops.dtype) == ((2, SIDE, SIDE, 3), np.uint8)
    for face, crop in zip(faces, crops, strict=True):
        np.testing.assert_array_equal(cut_crops(photo_of(image), [face], LANDMARKS)[0], crop)
    assert cut_crops(photo_of(image), [], LANDMARKS).shape == (0, SIDE, SIDE, 3)


@pytest.mark.parametrize("model", [LANDMARKS, FACENET], ids=["landmarks", "margin"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_small_face_of_a_large_photo_is_cut_from_the_rows_that_it_needs(
    model: ModelDescription, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows far from the face stay black, and the crops are the same, at the borders too."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    photo_like_noise(330, 250).save(stream, "PNG", exif=exif)
    data = stream.getvalue()
    whole, reduced = open_photo(data), open_photo(data, max_side=80)
    read: list[Photo] = []

    def decoded(photo: Photo, windows: object = None) -> Photo:
        read.append(full_resolution(photo, windows))  # type: ignore[arg-type]
        return read[-1]

    monkeypatch.setattr(align, "full_resolution", decoded)
    monkeypatch.setattr(decode, "BAND_PIXELS", 8 * 330 * 3)
    for centre in ((30.0, 40.0), (2.0, 3.0), (whole.width - 4.0, whole.height - 2.0)):
        points = placed(0.6, 0.3, centre)
        face = face_with(points, (centre[0] - 9, centre[1] - 9, centre[0] + 9, centre[1] + 9))
        crop, wanted = cut_crops(reduced, [face], model), cut_crops(whole, [face], model)
        np.testing.assert_array_equal(crop, wanted)
        assert not read[-1].image.any(axis=2).all()
        assert read[-1].image.shape == whole.image.shape
