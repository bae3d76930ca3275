"""What a gallery does, wherever it is: one suite over a folder and over Milvus."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from face2vec import (
    Face2Vec,
    GalleryError,
    GalleryLockedError,
    GalleryMismatchError,
    GalleryNotFoundError,
    SettingsError,
    samples,
)
from face2vec.cli.main import main
from face2vec.gallery.seam import FaceStore
from face2vec.index.seam import FaceSearch

STORES = ["folder", pytest.param("milvus", marks=pytest.mark.cluster)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three people, three of each, and one of all."""
    folder = tmp_path_factory.mktemp("drawn") / "photos"
    samples.write(folder, people=3, photos=3, groups=1, seed=1)
    return folder


def new_place(store: str, request: pytest.FixtureRequest, folder: Path) -> str:
    if store == "milvus":
        return str(request.getfixturevalue("servers").address())
    return str(folder / "gallery")


def open_at(place: str | None, **options: Any) -> Face2Vec:
    return Face2Vec(place, runtime="onnxruntime", threads=2, **options)


@pytest.fixture(scope="module")
def reference(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Face2Vec]:
    """A gallery of the photos in a folder, not to be changed."""
    with open_at(str(tmp_path_factory.mktemp("reference"))) as engine:
        engine.add(drawn)
        yield engine


@pytest.fixture(scope="module")
def grouped(reference: Face2Vec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Face2Vec]:
    """A gallery of the photos in a folder, with people, not to be changed."""
    folder = tmp_path_factory.mktemp("grouped")
    reference.copy_to(folder)
    with open_at(str(folder)) as engine:
        engine.find_people()
        yield engine


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The place of a gallery that does not exist yet."""
    return new_place(request.param, request, tmp_path)


@pytest.fixture(scope="module", params=STORES)
def shared(
    request: pytest.FixtureRequest, drawn: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Face2Vec]:
    """A gallery of the photos, not to be changed."""
    with open_at(new_place(request.param, request, tmp_path_factory.mktemp("shared"))) as engine:
        engine.add(drawn)
        yield engine


@pytest.fixture
def family(place: str, reference: Face2Vec) -> Iterator[Face2Vec]:
    """A gallery of the photos, free to be changed; a copy, which takes less time than a build."""
    reference.copy_to(place)
    with open_at(place) as engine:
        yield engine


def faces_in(engine: Face2Vec) -> dict[tuple[str, tuple[float, ...]], bytes]:
    """The bytes of each embedding by photo and box."""
    with engine.snapshot() as now:
        ids = [i for batch, _ in now for i in batch.tolist()]
        stored = now.stored_faces(ids)
    return {(one.photo, one.face.box): one.face.embedding.tobytes() for one in stored}


def photos_found(engine: Face2Vec, query: Any, k: int = 40) -> list[str]:
    return [match.photo for result in engine.search(query, k) for match in result.matches]


def test_store_and_search_implement_the_seams(shared: Face2Vec) -> None:
    assert isinstance(shared._session.gallery(), FaceStore)
    assert isinstance(shared._session.index(), FaceSearch)


def test_added_faces_are_those_of_a_gallery_in_a_folder(
    shared: Face2Vec, reference: Face2Vec
) -> None:
    assert faces_in(shared) == faces_in(reference)
    assert shared.check() == []
    facts, wanted = shared.info(), reference.info()
    for name in ("photos", "contents", "faces", "no_face", "unreadable", "made_with", "dimension"):
        assert facts[name] == wanted[name]


def test_matches_are_those_of_a_gallery_in_a_folder(
    shared: Face2Vec, reference: Face2Vec, drawn: Path
) -> None:
    for photo in ("groups/0.jpg", "person-001/1.jpg"):
        found, wanted = (one.search(drawn / photo, 5) for one in (shared, reference))
        assert len(found) == len(wanted) > 0
        for mine, theirs in zip(found, wanted, strict=True):
            for match, other in zip(mine.matches, theirs.matches, strict=True):
                assert match.photo == other.photo
                assert match.face.box == other.face.box
                assert match.face.landmarks == other.face.landmarks
                assert match.face.quality == other.face.quality
                assert match.similarity == pytest.approx(other.similarity, abs=1e-6)
                assert match.probability == pytest.approx(other.probability, abs=1e-6)
                assert match.false_matches == pytest.approx(other.false_matches, rel=1e-3)


def test_face_of_the_gallery_finds_others_and_not_itself(shared: Face2Vec, drawn: Path) -> None:
    own = shared.search(drawn / "person-000/0.jpg", 1)[0].matches[0].face
    others = shared.search(own, 3)[0].matches
    assert len(others) == 3
    assert own.id not in {match.face.id for match in others}


def test_known_photos_are_skipped_and_copies_are_linked(
    family: Face2Vec, place: str, drawn: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(drawn / "person-000", tmp_path / "copies"))
    again = family.add(drawn)
    assert (again.unchanged, again.added, again.faces) == (10, 0, 0)
    linked = family.add(copied)
    assert (linked.copies, linked.added, linked.faces) == (3, 0, 0)
    match = family.search(drawn / "person-000/0.jpg", 1)[0].matches[0]
    assert {match.photo, *match.copies} == {str(drawn / "person-000/0.jpg"), str(copied / "0.jpg")}
    with open_at(place) as other:
        assert other.add(drawn, copied).unchanged == 13


def test_changed_photo_replaces_its_faces(place: str, drawn: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    shutil.copy(drawn / "person-000/0.jpg", photo)
    with open_at(place) as engine:
        before = engine.add(photo).faces
        shutil.copy(drawn / "groups/0.jpg", photo)
        after = engine.add(photo).faces
        assert before != after
        assert engine.info()["faces"] == after
        assert engine.check() == []


def test_photo_that_is_read_again_gets_its_date(place: str, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x9003] = "2024:05:01 12:30:00"
    data = samples.people(1)[0].photo(0).jpeg()
    Image.open(io.BytesIO(data)).save(photo, exif=exif)
    with open_at(place) as engine:
        assert engine.add(photo).added == 1
        assert [one.photo for one in engine.photos(since="2024-05-01")] == [str(photo)]
        with engine._session.write() as writer, writer._transaction() as connection:
            connection.execute("UPDATE contents SET taken = NULL")  # as an older version left it
        assert engine.photos(since="2024-05-01") == []
        engine.add(photo, again=["indexed"])
        found = engine.photos(since="2024-05-01", until="2024-05-01")
        assert [one.photo for one in found] == [str(photo)]


def test_other_model_and_other_settings_are_refused(
    family: Face2Vec, place: str, tiny_model: Path
) -> None:
    from face2vec import DetectorSettings

    with pytest.raises(GalleryMismatchError, match="was made with model mini") as refused:
        open_at(place, model=tiny_model)
    assert "Milvus@" not in str(refused.value)
    with pytest.raises(GalleryMismatchError, match="other detector settings: min_face_size"):
        open_at(place, detector=DetectorSettings(min_face_size=40))


def test_removed_photos_are_not_found(family: Face2Vec, drawn: Path) -> None:
    before = len(faces_in(family))
    removed = family.remove(drawn / "person-000")
    assert removed.photos == 3
    assert len(faces_in(family)) == before - removed.faces
    found = photos_found(family, drawn / "person-000/0.jpg")
    assert len(found) == before - removed.faces
    assert not any("person-000" in photo for photo in found)
    assert family.check() == []
    with pytest.raises(GalleryError, match="none of these is in the gallery"):
        family.remove(drawn / "person-000")
    assert family.add(drawn).faces == removed.faces


def test_missing_photos_are_pruned(place: str, drawn: Path, tmp_path: Path) -> None:
    photos = Path(shutil.copytree(drawn, tmp_path / "photos"))
    with open_at(place) as engine:
        engine.add(photos)
        (photos / "groups/0.jpg").unlink()
        with pytest.raises(GalleryError, match="is missing or empty"):
            engine.prune()
        assert engine.prune(force=True).photos == 1
        assert engine.info()["photos"] == 9


def test_people_are_those_of_a_gallery_in_a_folder(
    family: Face2Vec, grouped: Face2Vec, drawn: Path
) -> None:
    family.find_people()

    def photos_of(engine: Face2Vec) -> list[list[str]]:
        people = [engine.faces_of(person) for person in engine.people()]
        return sorted(sorted(one.photo for one in faces) for faces in people)

    assert photos_of(family) == photos_of(grouped)
    person = family.people()[0]
    assert family.name(person, "Ada").name == "Ada"
    with pytest.raises(GalleryError, match="there is no person 'Bob'"):
        family.person("Bob")
    photo = family.faces_of("Ada")[0].photo
    assert "Ada" in {one.label for one in family.identify(photo)}
    assert family.undo() == f"name 'Ada' of person {person.id}"
    assert family.person(person.id).name is None


def test_a_group_and_a_new_face_are_suggested_for_one_person(place: str, drawn: Path) -> None:
    photos = sorted(drawn.glob("person-*/*.jpg"))
    new = photos.pop(0)
    with open_at(place) as engine:
        engine.add(photos)
        engine.find_people()
        engine.add([new])
        (face,) = [match.face for match in engine.search(new, k=1)[0].matches]
        asked = max(
            (one for one in engine.suggest() if face.id in one.first.shown + one.second.shown),
            key=lambda one: one.probability,
        )
        assert asked.probability > 0.5
        others = {*asked.first.shown, *asked.second.shown} - {face.id}
        (group,) = [set(one.faces) for one in engine.people() if others & set(one.faces)]
        joined = engine.answer(asked, same=True)
        assert joined is not None
        names = {Path(one.photo).parent.name for one in engine.faces_of(joined)}
        assert names == {new.parent.name}
        assert set(joined.faces) == group | {face.id}


def test_several_people_are_hidden_in_one_edit(family: Face2Vec) -> None:
    family.find_people()
    people = family.people()[:2]
    family.hide_people(people)
    assert [family.person(one.id).hidden for one in people] == [True, True]
    family.undo()
    assert [family.person(one.id).hidden for one in people] == [False, False]


def test_edits_of_people_are_stored_and_undone(family: Face2Vec, place: str) -> None:
    family.find_people()
    first, second = family.people()[:2]
    family.merge(first, second)
    assert set(family.person(first.id).faces) == {*first.faces, *second.faces}
    part = family.split(first.id, second.faces[0])
    assert part.faces == second.faces[:1]
    assert part.id > max(first.id, second.id)
    family.name(part, "Grace")
    with open_at(place) as other:
        assert other.person("Grace").faces == part.faces
        assert len(other.edits()) == 3
        for _ in range(3):
            other.undo()
    assert [person.faces for person in family.people()[:2]] == [first.faces, second.faces]


def test_ignored_face_leaves_and_comes_back(family: Face2Vec, drawn: Path) -> None:
    before = faces_in(family)
    face = family.search(drawn / "person-000/0.jpg", 1)[0].matches[0].face
    family.ignore(face.id)
    assert len(faces_in(family)) == len(before) - 1
    assert face.id not in {
        match.face.id for match in family.search(drawn / "person-000/0.jpg", 40)[0].matches
    }
    assert family.check() == []
    family.undo()
    assert faces_in(family) == before
    match = family.search(drawn / "person-000/0.jpg", 1)[0].matches[0]
    assert match.face.id == face.id


def test_forgotten_person_leaves_and_stays_away(family: Face2Vec, drawn: Path) -> None:
    family.find_people()
    person = family.people()[0]
    family.name(person, "Ada")
    stored = family.faces_of("Ada")
    with family.snapshot() as now:
        queries = now.embeddings(person.faces)
    done = family.forget("Ada")
    assert (done.person, done.faces) == (person.id, len(person.faces))
    assert not any("the embedding of face" in left for left in done.left)
    assert family.check() == []
    for result in family.search(queries, 40):
        assert not {match.face.id for match in result.matches} & set(person.faces)
    again = family.add(drawn)
    assert again.forgotten == done.photos
    assert family.info()["faces"] == len(faces_in(family))
    assert not {(one.photo, one.face.box) for one in stored} & set(faces_in(family))
    family.find_people(again=True)
    assert person.id not in {one.id for one in family.people()}


def test_readmitted_photo_has_its_faces_again(family: Face2Vec, drawn: Path) -> None:
    before = faces_in(family)
    group = str(drawn / "groups/0.jpg")
    face = next(one for one in family.search(group, 1) if one.matches).matches[0].face
    family.ignore(face.id)
    assert family.readmit(group).faces == 1
    assert faces_in(family) == before
    assert family.check() == []


def test_second_writer_is_refused_and_told_of_the_first(
    family: Face2Vec, place: str, drawn: Path
) -> None:
    with (
        open_at(place) as other,
        family._session.write(),
        pytest.raises(GalleryLockedError, match=r"process|by this process"),
    ):
        other.add(drawn)


def test_faces_are_exported_and_imported(
    shared: Face2Vec, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store = "milvus" if "milvus" in repr(shared) else "folder"
    table = tmp_path / "faces.npz"
    assert shared.export(table) == len(faces_in(shared))
    (tmp_path / "second").mkdir()
    with open_at(new_place(store, request, tmp_path / "second")) as other:
        assert other.import_faces(table).faces == len(faces_in(shared))
        found, wanted = faces_in(other), faces_in(shared)
        assert found.keys() == wanted.keys()
        for place, embedding in found.items():
            # An imported embedding is scaled to length 1 once more.
            cosine = np.vecdot(np.frombuffer(embedding, "<f4"), np.frombuffer(wanted[place], "<f4"))
            assert cosine == pytest.approx(1, abs=1e-6)


def test_faces_are_searched_by_pose(shared: Face2Vec, reference: Face2Vec, drawn: Path) -> None:
    found, wanted = (one.search_pose(drawn / "groups/0.jpg", 3) for one in (shared, reference))
    assert [[match.photo for match in one.matches] for one in found] == [
        [match.photo for match in one.matches] for one in wanted
    ]


def test_place_without_a_gallery_is_told(place: str, drawn: Path) -> None:
    with open_at(place) as engine:
        assert not engine.has_gallery
        with pytest.raises(GalleryNotFoundError, match="add photos to it first"):
            engine.search(drawn / "groups/0.jpg")


def test_own_calibration_is_stored(family: Face2Vec, place: str) -> None:
    family.calibrate(family.calibration)
    with open_at(place) as other, other.snapshot() as now:
        stored = now.calibration()
        assert stored is not None
        assert stored.to_json() == family.calibration.to_json()


def test_rates_are_looked_at_and_verify_knows_the_gallery(family: Face2Vec, drawn: Path) -> None:
    found = family.reliability(far=0.01)
    assert (found.faces, found.cohort) == (12, 0)  # three people say nothing of strangers
    assert found.kinds[0].value == "all"
    assert all(one.few for one in found.kinds)
    same, other = (drawn / "person-000" / "1.jpg", drawn / "person-001" / "0.jpg")
    assert family.verify(drawn / "person-000" / "0.jpg", same).same
    assert not family.verify(drawn / "person-000" / "0.jpg", other).same


def test_rebuilt_index_finds_the_same(family: Face2Vec, drawn: Path) -> None:
    before = photos_found(family, drawn / "groups/0.jpg", 5)
    family.rebuild()
    assert photos_found(family, drawn / "groups/0.jpg", 5) == before


def test_embeddings_of_unknown_faces_are_nan(shared: Face2Vec) -> None:
    with shared.snapshot() as now:
        known = next(iter(now))[0][:1].tolist()
        found = now.embeddings([*known, 2**60])
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


@pytest.mark.cluster
def test_upgrade_is_refused_in_one_line(servers: Any, drawn: Path, tiny_model: Path) -> None:
    with open_at(servers.address()) as engine:
        engine.add(drawn / "groups")
        with pytest.raises(SettingsError, match="does not work on a gallery in Milvus; index"):
            engine.upgrade(tiny_model)


@pytest.mark.parametrize(
    "way", ["folder to folder", pytest.param("there and back", marks=pytest.mark.cluster)]
)
def test_copy_has_the_same_faces_and_people(
    way: str, grouped: Face2Vec, reference: Face2Vec, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with open_at(str(tmp_path / "original")) as engine:
        grouped.copy_to(tmp_path / "original")
        engine.name(engine.people()[0], "Ada")
        engine.ignore(engine.people()[1].faces[0])
        engine.forget(engine.people()[2])
        places = [str(tmp_path / "copy")]
        if way == "there and back":
            places.insert(0, request.getfixturevalue("servers").address())
        last = engine
        for place in places:
            done = last.copy_to(place)
            assert (done.faces, done.people) == (engine.info()["faces"], len(engine.people()))
            assert last.copy_to(place).known == done.photos
            last = request.getfixturevalue("opened_later")(place)
        assert faces_in(last) == faces_in(engine)
        assert last.check() == []
        for person in engine.people():
            same = last.person(person.id)
            assert same.name == person.name
            assert {one.photo for one in last.faces_of(same)} == {
                one.photo for one in engine.faces_of(person)
            }
        with pytest.raises(GalleryError, match="has photos of its own"):
            reference.copy_to(places[-1])


@pytest.fixture
def opened_later() -> Iterator[Any]:
    """Opens galleries, and closes them after the test."""
    with contextlib.ExitStack() as ends:
        yield lambda place: ends.enter_context(open_at(place))


@pytest.mark.cluster
def test_commands_take_the_address_and_print_no_password(
    servers: Any, drawn: Path, tmp_path: Path
) -> None:
    place = servers.address()
    shown = place.replace("root:Milvus@", "")
    photo = str(drawn / "groups/0.jpg")
    said = ""
    for code, *command in (
        (0, "index", str(drawn), "--gallery", place, "--ray", servers.ray.address, "-v"),
        (0, "index", str(drawn), "--gallery", place),
        (0, "info", place),
        (0, "photos", place),
        (0, "search", place, photo, "-k", "2"),
        (0, "people", place),
        (0, "name", place, "1", "Ada"),
        (1, "identify", place, photo),
        (0, "undo", place),
        (0, "remove", place, photo),
        (0, "verify", photo, str(drawn / "groups/0.jpg"), "--gallery", place),
        (0, "copy", place, str(tmp_path / "copy")),
        (1, "forget", place, "1", "--yes"),
        (0, "check", place),
        (3, "upgrade", place, "--model", "mini"),
        (3, "remove", place, "nowhere.jpg"),
    ):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == code, (command, done.output)
        assert "Milvus@" not in done.output
        said += done.output
    assert f"Gallery    {shown}" in said
    assert "10 photos: 10 new" in said
    assert "10 photos: 0 new, 10 unchanged" in said
    assert "until its garbage collection deletes them" in said
    assert f"none of these is in the gallery {shown}" in said
