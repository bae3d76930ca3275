"""Faces to train on: every source gives the same crops and people."""

from __future__ import annotations

import io
import sys
import tarfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import needs
from PIL import Image

from face2vec import samples
from face2vec.errors import MissingExtraError, SettingsError
from face2vec.models.description import FIVE_POINTS, ModelDescription
from face2vec.training.faces import Faces, joined, load_faces

MODEL = ModelDescription("test", 8, 32, "landmarks", FIVE_POINTS)


@pytest.fixture
def crops() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    names = ("ann/1.png", "ann/2.png", "bea/1.png", "cid/x/1.png")
    return {name: rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for name in names}


def png(crop: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(crop).save(file, "PNG")
    return file.getvalue()


def write(folder: Path, crops: dict[str, np.ndarray]) -> Path:
    for name, crop in crops.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(crop))
    return folder


def pack(path: Path, crops: dict[str, np.ndarray]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, crop in reversed(crops.items()):  # the order inside must not matter
            member = tarfile.TarInfo(name)
            member.size = len(png(crop))
            archive.addfile(member, io.BytesIO(png(crop)))
    return path


def portrait(person: samples.Person, number: int) -> np.ndarray:
    """A drawn photo as CelebA's are: 178×218 pixels around the face."""
    photo = person.photo(number)
    left, top, right, bottom = photo.faces[0].box
    x, y, width = (left + right) / 2, (top + bottom) / 2, 2 * (right - left)
    box = (x - width / 2, y - width * 218 / 356, x + width / 2, y + width * 218 / 356)
    cut = Image.fromarray(photo.image).crop(tuple(map(round, box)))
    return np.asarray(cut.resize((178, 218)))


def people(faces: Faces) -> list[str]:
    return [faces.names[i] if i >= 0 else "" for i in faces.people]


def test_names_in_two_normal_forms_are_one_person(
    tmp_path: Path, crops: dict[str, np.ndarray]
) -> None:
    jose = [unicodedata.normalize(form, "José") for form in ("NFC", "NFD")]
    names = (f"{jose[0]}/1.png", f"{jose[1]}/2.png", "zoe/1.png")
    archive = pack(tmp_path / "a.tar", dict(zip(names, crops.values(), strict=False)))
    faces = load_faces(archive, MODEL, aligned=True)
    assert faces.names == (jose[0], "zoe")
    assert sorted(people(faces)) == [jose[0], jose[0], "zoe"]


def test_faces_of_a_folder_a_person(tmp_path: Path, crops: dict[str, np.ndarray]) -> None:
    faces = load_faces(write(tmp_path, crops), MODEL, aligned=True)
    assert people(faces) == ["ann", "ann", "bea", "cid"]
    assert np.array_equal(faces.crops, np.stack(list(crops.values())))


def test_faces_of_a_tar_equal_those_of_its_folder(
    tmp_path: Path, crops: dict[str, np.ndarray]
) -> None:
    crops = {name: crop for name, crop in crops.items() if not name.startswith("cid")}
    folder = load_faces(write(tmp_path / "folder", crops), MODEL, aligned=True)
    archive = load_faces(pack(tmp_path / "faces.tar", crops), MODEL, aligned=True)
    assert np.array_equal(archive.crops, folder.crops)
    assert people(archive) == people(folder)


def test_faces_of_a_csv_are_found_beside_it(tmp_path: Path, crops: dict[str, np.ndarray]) -> None:
    write(tmp_path, crops)
    table = tmp_path / "faces.csv"
    table.write_text("file,person\nbea/1.png,Béa\nann/2.png,\n", encoding="utf-8")
    faces = load_faces(table, MODEL, aligned=True)
    assert people(faces) == ["Béa", ""]
    assert faces.people.tolist() == [0, -1]
    assert np.array_equal(faces.crops[0], crops["bea/1.png"])


def test_faces_of_a_tar_take_people_from_the_table(
    tmp_path: Path, crops: dict[str, np.ndarray]
) -> None:
    table = tmp_path / "people.csv"
    table.write_text("file,set,person\nann/1.png,a,zoe\nbea/1.png,b,\n", encoding="utf-8")
    faces = load_faces(pack(tmp_path / "faces.tar", crops), MODEL, table=table, aligned=True)
    assert people(faces) == ["zoe", "", "", ""]


def test_faces_are_detected_and_aligned_as_the_engine_does(
    tmp_path: Path, astronaut: Image.Image, hopper: Image.Image
) -> None:
    from face2vec.detection.mtcnn import DetectorSettings, Mtcnn
    from face2vec.encoding.align import cut_faces
    from face2vec.photos.decode import open_photo
    from face2vec.runtime.select import choose_runtime, detector_runtime

    photos = {
        "eileen/a.png": np.asarray(astronaut.convert("RGB")),
        "grace/h.png": np.asarray(hopper.convert("RGB")),
    }
    write(tmp_path, photos | {"eileen/none.png": np.zeros((64, 64, 3), np.uint8)})
    (tmp_path / "grace" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    faces = load_faces(tmp_path, MODEL)
    assert people(faces) == ["eileen", "grace"]
    reasons = {Path(name).name: why for name, why in faces.failed}
    assert reasons["none.png"] == "no face was found"
    assert reasons.keys() == {"none.png", "broken.jpg"}
    detector = Mtcnn(DetectorSettings(), detector_runtime(choose_runtime()))
    for crop, image in zip(faces.crops, photos.values(), strict=True):
        photo = open_photo(image)
        largest = max(detector.detect([photo.image])[0], key=lambda face: face.area)
        assert np.array_equal(crop, cut_faces(photo, [largest], MODEL)[1][0])


@pytest.mark.parametrize(
    ("write_source", "said"),
    [
        (lambda folder: folder / "nothing", "is not a folder"),
        (lambda folder: folder, "nothing to train on"),
    ],
    ids=["missing", "empty"],
)
def test_faces_of_nothing_are_refused_in_words(
    tmp_path: Path, write_source: Any, said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        load_faces(write_source(tmp_path), MODEL, aligned=True)


def test_aligned_crop_that_cannot_be_read_is_left_out_with_a_reason(tmp_path: Path) -> None:
    write(tmp_path, {"a/1.png": np.zeros((32, 32, 3), np.uint8)})
    (tmp_path / "a" / "2.png").write_bytes(b"no photo")
    faces = load_faces(tmp_path, MODEL, aligned=True)
    assert len(faces) == 1
    assert faces.failed == ((str(tmp_path / "a" / "2.png"), "not a photo, or damaged"),)


def test_faces_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a/1.png": np.zeros((32, 32, 3), np.uint8)})
    write(tmp_path, {"a/2.png": np.zeros((40, 40, 3), np.uint8)})
    with pytest.raises(SettingsError, match="40×40 pixels and others are 32×32"):
        load_faces(tmp_path, MODEL, aligned=True)


def test_faces_that_are_not_square_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a/1.png": np.zeros((32, 30, 3), np.uint8)})
    with pytest.raises(SettingsError, match="30×32 pixels; aligned crops are square"):
        load_faces(tmp_path, MODEL, aligned=True)


def test_faces_of_several_sources_keep_their_people_and_what_is_held_out(
    tmp_path: Path, crops: dict[str, np.ndarray]
) -> None:
    sources = []
    for number in (1, 2):
        archive = pack(tmp_path / f"faces{number}.tar", crops)
        table = tmp_path / f"faces{number}.csv"
        rows = [f"{name},{name[0]},{int(i % 3 == 0)}" for i, name in enumerate(crops)]
        table.write_text("\n".join(["file,person,held_out", *rows]))
        sources.append(load_faces(archive, MODEL, table=table, aligned=True))
    both = joined(sources)
    assert len(both) == 2 * len(crops)
    assert both.names == sources[0].names * 2
    half = len(crops)
    assert set(both.people[:half]).isdisjoint(both.people[half:])
    held = both.held_out
    assert held is not None
    learn, kept_out = both.split(0.9, seed=0)
    np.testing.assert_array_equal(learn.crops, both.crops[~held])
    np.testing.assert_array_equal(kept_out.crops, both.crops[held])
    without = load_faces(pack(tmp_path / "plain.tar", crops), MODEL, aligned=True)
    with pytest.raises(SettingsError, match="'held_out' is needed in every table, or in none"):
        joined([sources[0], without])


def test_split_by_face_holds_out_a_share_and_loses_none() -> None:
    faces = Faces(np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1), np.arange(100) % 10)
    learn, held = faces.split(0.2, seed=3)
    assert len(held) == 20
    assert sorted([*learn.crops.ravel(), *held.crops.ravel()]) == list(range(100))
    again = faces.split(0.2, seed=3)[1]
    assert np.array_equal(again.crops, held.crops)
    assert not np.array_equal(faces.split(0.2, seed=4)[1].crops, held.crops)


def test_split_by_person_parts_people_and_learns_from_the_nameless() -> None:
    people = np.array([0, 0, 1, 1, 2, 2, 3, 3, -1, -1])
    faces = Faces(np.zeros((10, 1, 1, 3), np.uint8), people)
    learn, held = faces.split(0.5, seed=0, by_person=True)
    assert not set(learn.people) & set(held.people)
    assert len(set(held.people)) == 2
    assert (learn.people == -1).sum() == 2


@pytest.mark.keras
def test_faces_of_celeb_a_as_tensorflow_datasets_keeps_it(tmp_path: Path) -> None:
    needs("tfds", "tensorflow_datasets", "tensorflow")
    import tensorflow as tf
    import tensorflow_datasets as tfds

    builder = tfds.builder("celeb_a", data_dir=tmp_path)
    features = builder.info.features
    numbers = {"train": [2, 0, 2], "validation": [1], "test": [0, 1]}
    drawn = samples.people(3, seed=5)
    photos = {
        split: [portrait(drawn[number], i) for i, number in enumerate(which)]
        for split, which in numbers.items()
    }

    def stored(split: str) -> Any:
        rest = {name: dict.fromkeys(features[name], 0) for name in ("landmarks", "attributes")}
        return tf.data.Dataset.from_generator(
            lambda: (
                {"image": photo, "identity": {"Identity_No": number}, **rest}
                for photo, number in zip(photos[split], numbers[split], strict=True)
            ),
            output_signature=features.get_tensor_spec(),
        )

    tfds.dataset_builders.store_as_tfds_dataset(
        name="celeb_a",
        version=str(builder.version),
        features=features,
        split_datasets={split: stored(split) for split in numbers},
        data_dir=tmp_path,
    )
    faces = load_faces(f"tfds:celeb_a:{tmp_path}", MODEL)
    for split, some in photos.items():
        for i, (photo, number) in enumerate(zip(some, numbers[split], strict=True)):
            (tmp_path / "own" / str(number)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo).save(tmp_path / "own" / str(number) / f"{split}{i}.png")
    own = load_faces(tmp_path / "own", MODEL)
    apart = np.abs(faces.crops[:, None].astype(int) - own.crops).mean(axis=(2, 3, 4))
    nearest = apart.argmin(axis=1)  # TFDS keeps JPEG, and in an order of its own
    assert sorted(nearest) == list(range(6))
    assert apart.min(axis=1).max() < 5
    assert people(faces) == [people(own)[i] for i in nearest]


def test_tfds_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(MissingExtraError, match=r"face2vec\[tfds\]"):
        load_faces("tfds:celeb_a", MODEL, aligned=True)
