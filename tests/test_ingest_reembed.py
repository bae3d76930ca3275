"""Upgrades of a gallery to another model: through `Face2Vec`, the command line, and kills."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import gallery_builder
import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import fake_fingerprint, posix_only, reads

from face2vec import Face2Vec, samples
from face2vec.cli.main import main
from face2vec.errors import (
    GalleryMismatchError,
    GalleryUpgradedError,
    ModelError,
    SettingsError,
)
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.staging import (
    UPGRADE_FILE,
    UPGRADED_INDEX,
    NewEmbeddings,
    Remade,
    _open_upgrade,
)
from face2vec.gallery.writer import Writer
from face2vec.ingest import reembed as upgrading
from face2vec.ingest.embedding_map import learn_map

PEOPLE, PHOTOS = 6, 5
FACES = PEOPLE * PHOTOS

Stored = dict[tuple[str, tuple[float, ...]], tuple[bytes, float | None]]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    for number, person in enumerate(samples.people(PEOPLE, seed=4)):
        for photo in range(PHOTOS):
            (folder / f"{number}-{photo}.jpg").write_bytes(person.photo(photo).jpeg())
    return folder


@pytest.fixture
def photos(drawn: Path, tmp_path: Path) -> Path:
    """Copies of the photos that may be changed, as they are named in the gallery."""
    return Path(shutil.copytree(drawn, tmp_path / "photos"))


@pytest.fixture
def gallery(photos: Path, tiny_model: Path, tmp_path: Path) -> Path:
    """A gallery with the tiny model."""
    with Face2Vec(tmp_path / "gallery", model=tiny_model) as engine:
        engine.add(photos)
    return tmp_path / "gallery"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def stored(gallery: Path) -> Stored:
    """(embedding, quality) of each face, by name of its photo and box."""
    found: Stored = {}
    with Gallery.open(gallery) as opened:
        for photo, _, _ in opened.photos():
            for one in reads(opened).faces_of(photo):
                assert one.face.embedding is not None
                key = (Path(photo).name, one.face.box)
                found[key] = (one.face.embedding.tobytes(), one.face.quality)
    return found


def fresh(photos: Path, folder: Path) -> Stored:
    """Faces of a gallery that was built with the newer model."""
    with Face2Vec(folder, model="mini") as engine:
        engine.add(photos)
    return stored(folder)


def stop_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt an upgrade by Ctrl-C after a number of batches of four photos."""
    store, seen = NewEmbeddings.store, [0]

    def stopping(*given: object) -> None:
        if seen[0] == batches:
            raise KeyboardInterrupt
        seen[0] += 1
        store(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(upgrading, "BATCH_PHOTOS", 4)
    monkeypatch.setattr(NewEmbeddings, "store", stopping)


def begin(gallery: Path, batches: int = 3) -> None:
    """Run an upgrade that is interrupted half-way."""
    with pytest.MonkeyPatch.context() as patch, Face2Vec(gallery) as engine:
        stop_after(batches, patch)
        done = engine.upgrade("mini")
    assert (done.switched, done.interrupted, done.faces) == (False, True, 4 * batches)


def test_upgrade_equals_a_gallery_built_with_the_new_model(
    gallery: Path, photos: Path, tmp_path: Path
) -> None:
    with Face2Vec(gallery) as engine:
        done = engine.upgrade("mini")
        assert (done.switched, done.faces, done.missing) == (True, FACES, ())
        found = engine.search(photos / "0-0.jpg", k=3)[0].matches
        assert engine.check() == []
        assert engine.info()["upgrade_begun"] is None
    assert stored(gallery) == fresh(photos, tmp_path / "fresh")
    with Face2Vec(tmp_path / "fresh") as engine:
        wanted = engine.search(photos / "0-0.jpg", k=3)[0].matches
    assert [(m.photo, m.similarity) for m in found] == [(m.photo, m.similarity) for m in wanted]
    assert {file.name for file in gallery.iterdir()} >= {"gallery.sqlite", "index.faiss"}
    assert not [file.name for file in gallery.iterdir() if "upgrade" in file.name]


def test_upgrade_keeps_face_ids_and_people(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        ada = engine.this_person(None, 1, 2, 3)
        engine.name(ada, "Ada")
        engine.this_person(None, 8, 9)
        before, places = engine.people(), [one.photo for one in engine.faces_of("Ada")]
        engine.upgrade("mini")
        assert engine.people() == before
        assert [one.photo for one in engine.faces_of("Ada")] == places
        assert engine.undo() == "assignment of 2 faces to person 2"
        assert [person.faces for person in engine.people()] == [(1, 2, 3)]


def test_upgrade_resumes_and_the_old_model_answers_meanwhile(
    gallery: Path, photos: Path, tmp_path: Path
) -> None:
    before = stored(gallery)
    begin(gallery)
    assert stored(gallery) == before
    shutil.copytree(photos, photos / "more")
    for file in (photos / "more").glob("[1-9]*.jpg"):
        file.unlink()
    extra = next(iter(samples.people(1, seed=77))).photo(0).jpeg()
    (photos / "more" / "new.jpg").write_bytes(extra)
    with Face2Vec(gallery) as engine:
        assert engine.info()["upgrade_begun"] == {"model": "mini", "faces": 12}
        assert engine.add(photos).faces == 1
        assert engine.search(photos / "1-1.jpg", k=1)[0].matches[0].photo.endswith("1-1.jpg")
        done = engine.upgrade("mini")
    assert done.faces == FACES - 12 + 1
    assert stored(gallery) == fresh(photos, tmp_path / "fresh")


def test_upgrade_is_noticed_by_open_galleries(gallery: Path, photos: Path) -> None:
    with Face2Vec(gallery) as other, Face2Vec(gallery) as engine:
        asked = other.encode(photos / "0-0.jpg")[0]
        assert other.search(asked, k=1)
        engine.upgrade("mini")
        for ask in (
            lambda: other.search(asked),
            lambda: other.search(photos / "0-0.jpg"),
            other.people,
            lambda: other.add(photos),
        ):
            with pytest.raises(GalleryUpgradedError, match="upgraded to another model"):
                ask()
        assert len(engine.encode(photos / "0-0.jpg")[0].embedding) == 256  # type: ignore[arg-type]
    with Face2Vec(gallery) as again:
        assert again.search(photos / "0-0.jpg", k=1)[0].matches[0].similarity > 0.99


def test_query_face_of_the_old_model_is_refused_after_an_upgrade(
    gallery: Path, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    other = same_numbers_otherwise(tiny_model, tmp_path)
    with Face2Vec(gallery) as engine:
        old = engine.encode(photos / "0-0.jpg")[0]
        known = engine.search(old, k=1)[0].matches[0].face
        whole = reads(engine._session.gallery()).stored_faces([known.id or 0])[0].face
        engine.upgrade(other)
        for face in (old, whole):
            with pytest.raises(GalleryMismatchError, match=r"another model .* encode its photo"):
                engine.search(face)
        new = engine.encode(photos / "0-0.jpg")[0]
        assert len(new.embedding) == len(old.embedding)  # type: ignore[arg-type]
        assert engine.search(new, k=1)[0].matches[0].face.id == known.id
        assert len(engine.search(known, k=3)[0].matches) == 3  # by its id, which has not changed


def test_moved_and_renamed_model_file_is_the_same_model(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    first = Path(shutil.copytree(tiny_model.parent, tmp_path / "first")) / tiny_model.name
    with Face2Vec(tmp_path / "g", model=first) as engine:
        engine.add(photos)
        asked = engine.encode(photos / "0-0.jpg")[0]
    for place, go_on in enumerate(
        (
            lambda model: run("upgrade", tmp_path / "g", "--model", model),
            lambda model: run("index", photos, "--gallery", tmp_path / "g", "--model", model),
        )
    ):
        moved = tmp_path / f"place-{place}" / "renamed.onnx"
        moved.parent.mkdir()
        first.rename(moved)
        first.with_suffix(".json").rename(moved.with_suffix(".json"))
        with (
            Face2Vec(tmp_path / "g") as engine,
            pytest.raises(ModelError, match=rf"no longer at {first}.*face2vec upgrade"),
        ):
            engine.search(photos / "0-0.jpg")
        assert go_on(moved).exit_code == 0
        with Face2Vec(tmp_path / "g") as engine:
            assert engine.search(photos / "0-0.jpg", k=1)[0].matches[0].similarity > 0.999
            assert engine.search(asked, k=1)[0].matches[0].similarity > 0.999
        first = moved


def test_upgrade_resumes_with_a_model_that_was_moved(
    gallery: Path, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    other = same_numbers_otherwise(tiny_model, tmp_path)
    with pytest.MonkeyPatch.context() as patch, Face2Vec(gallery) as engine:
        stop_after(2, patch)
        assert engine.upgrade(other).interrupted
    moved = Path(shutil.move(other.parent, tmp_path / "moved")) / other.name
    with Face2Vec(gallery) as engine:
        old = engine.search(engine.encode(photos / "0-0.jpg")[0], k=1)[0].matches[0].face
        face = reads(engine._session.gallery()).stored_faces([old.id or 0])[0].face
        assert engine.upgrade(moved).faces == FACES - 8
        with pytest.raises(GalleryMismatchError, match="by another model"):
            engine.search_pose(face)
    with Face2Vec(gallery) as engine:
        assert engine.search(photos / "0-0.jpg", k=1)[0].matches[0].similarity > 0.999


def test_drop_missing_also_drops_mapped_faces(gallery: Path, photos: Path) -> None:
    (photos / "0-0.jpg").unlink()
    (photos / "1-1.jpg").write_bytes(b"changed")
    with Face2Vec(gallery) as engine:
        done = engine.upgrade("mini", with_map=True, sample=24)
        assert (done.mapped, done.dropped, engine.info()["faces"]) == (2, 0, FACES)
        done = engine.upgrade("mini", drop_missing=True)
        assert (done.mapped, done.dropped, engine.info()["faces"]) == (0, 2, FACES - 2)
        assert engine.check() == []


def same_numbers_otherwise(model: Path, folder: Path) -> Path:
    """Another model with the same dimension."""
    other = Path(shutil.copytree(model.parent, folder / "other")) / model.name
    described = other.with_suffix(".json")
    described.write_text(
        json.dumps({**json.loads(described.read_text()), "key": "tinier", "std": 99})
    )
    return other


def test_leftover_staged_index_is_deleted_on_the_next_write(gallery: Path, photos: Path) -> None:
    beside = gallery / UPGRADED_INDEX
    for write in (
        lambda engine: engine.remove(photos / "0-0.jpg"),
        lambda engine: engine.abandon_upgrade(),
    ):
        shutil.copy(gallery / "index.faiss", beside)
        with Face2Vec(gallery) as engine:
            write(engine)
        assert not beside.exists()


def test_upgrade_with_missing_photos_switches_only_with_drop_missing(
    gallery: Path, photos: Path
) -> None:
    (photos / "0-0.jpg").unlink()
    (photos / "0-1.jpg").write_bytes((photos / "0-2.jpg").read_bytes() + b"\0")
    before = stored(gallery)
    told = run("upgrade", gallery, "--model", "mini", "-q", "--json")
    assert told.exit_code == 1
    facts = json.loads(told.stdout)
    assert (facts["switched"], facts["faces"]) == (False, FACES - 2)
    assert sorted((Path(one["photo"]).name, one["reason"]) for one in facts["missing"]) == [
        ("0-0.jpg", "missing"),
        ("0-1.jpg", upgrading.CHANGED),
    ]
    assert stored(gallery) == before
    told = run("upgrade", gallery, "--model", "mini", "--drop-missing")
    assert told.exit_code == 0, told.output
    assert "2 faces removed with their photos" in told.stderr
    assert "1 × changed since it was indexed" in told.stderr
    assert {name for name, _ in stored(gallery)} == {name for name, _ in before} - {
        "0-0.jpg",
        "0-1.jpg",
    }
    assert run("check", gallery).exit_code == 0


def test_upgrade_reads_a_copy_of_a_missing_photo(gallery: Path, photos: Path) -> None:
    shutil.copy(photos / "0-0.jpg", photos / "copy.jpg")
    with Face2Vec(gallery) as engine:
        engine.add(photos)
        (photos / "0-0.jpg").unlink()
        assert engine.upgrade("mini").missing == ()


def test_upgrade_with_a_map_switches_early_and_ends_equal(
    gallery: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(gallery)
    true = fresh(photos, tmp_path / "fresh")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, Face2Vec(gallery) as engine:
        patch.setattr(Writer, "replace_mapped", stop)
        done = engine.upgrade("mini", with_map=True, sample=24)
        assert engine.info()["mapped"] == done.mapped == FACES - done.faces
        assert engine.check() == []
    assert (done.switched, done.interrupted) == (True, True)
    now = stored(gallery)
    made = [key for key, value in now.items() if value == true[key]]
    assert 24 <= len(made) == done.faces < FACES

    def rows(of: Stored, keys: list[tuple[str, tuple[float, ...]]]) -> np.ndarray:
        return np.array([np.frombuffer(of[key][0], np.float32) for key in keys])

    ids = {key: number for number, key in enumerate(before)}
    made.sort(key=lambda key: ids[key])
    learned, figures = learn_map(rows(before, made), rows(true, made))
    assert done.learned == figures
    rest = [key for key in now if key not in made]
    assert np.abs(rows(now, rest) - learned(rows(before, rest))).max() < 1e-5

    with Face2Vec(gallery) as engine:
        engine.search(photos / "0-0.jpg")  # loads the current index into memory
        again = engine.upgrade("mini")
        assert (again.faces, again.mapped, engine.info()["mapped"]) == (len(rest), 0, 0)
        assert engine.check() == []
        similar = engine.search(photos / "3-3.jpg", k=FACES)[0].matches
        asked = engine.encode(photos / "3-3.jpg")[0].embedding
    assert stored(gallery) == true
    assert asked is not None
    wanted = sorted(rows(true, list(true)) @ asked, reverse=True)
    assert np.abs(np.array([match.similarity for match in similar]) - wanted).max() < 1e-5


def test_upgrade_with_a_map_keeps_faces_of_missing_photos(gallery: Path, photos: Path) -> None:
    (photos / "0-0.jpg").unlink()
    told = run("upgrade", gallery, "--model", "mini", "--map", "--sample", FACES)
    assert told.exit_code == 0, told.output
    assert "1 face with a mapped embedding" in told.stderr
    assert "have their own new embedding nearest" in told.stderr
    assert len(stored(gallery)) == FACES
    told = run("upgrade", gallery, "--model", "mini", "-q", "--json")
    assert json.loads(told.stdout)["mapped"] == 1


def test_upgrade_with_a_map_refuses_a_small_sample(gallery: Path) -> None:
    with Face2Vec(gallery) as engine, pytest.raises(SettingsError, match="too few to learn a map"):
        engine.upgrade("mini", with_map=True, sample=5)


def test_forget_leaves_no_traces_in_an_upgrade_in_progress(gallery: Path) -> None:
    begin(gallery, batches=5)
    with NewEmbeddings(gallery, *_what_is_begun(gallery)) as new:
        made = new.known()[0].tolist()
        secret = new.embeddings(made[:1])[0].tobytes()
    assert secret[:64] in (gallery / UPGRADE_FILE).read_bytes()
    with Face2Vec(gallery) as engine:
        engine.forget(engine.this_person(None, made[0]))
    assert secret[:64] not in (gallery / UPGRADE_FILE).read_bytes()
    with NewEmbeddings(gallery, *_what_is_begun(gallery)) as new:
        assert new.known()[0].tolist() == made[1:]


def test_upgrade_refuses_another_model_while_one_is_in_progress(
    gallery: Path, tiny_model: Path, tmp_path: Path
) -> None:
    begin(gallery)
    other = same_numbers_otherwise(tiny_model, tmp_path)
    with Face2Vec(gallery) as engine, pytest.raises(SettingsError, match="'mini' is in progress"):
        engine.upgrade(other)
    assert run("upgrade", gallery, "--abandon").stderr == "upgrade abandoned\n"
    assert run("upgrade", gallery, "--abandon").stderr == "no upgrade is in progress\n"
    assert not (gallery / UPGRADE_FILE).exists()
    assert run("upgrade", gallery).exit_code == 2


def _what_is_begun(gallery: Path) -> tuple[str, Any]:
    with _open_upgrade(gallery / UPGRADE_FILE) as opened:
        assert opened is not None
        _, target = opened
    return target.gallery, target.fingerprint


@posix_only
def test_killed_switch_is_complete_or_has_no_effect(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(6):
        (photos / f"{number}.jpg").write_bytes(b"photo %d" % number)
    gallery_builder.build(photos, tmp_path / "whole")
    old = stored(tmp_path / "whole")
    with Gallery.open(tmp_path / "whole") as gallery, _made(gallery) as new:
        assert len(new.known()[0]) == len(old)

    def switch(folder: Path) -> None:
        with Gallery.open(folder) as gallery, _made(gallery) as new, gallery.write() as writer:
            writer.switch(new, None, False, lambda *_: None)

    counted = Path(shutil.copytree(tmp_path / "whole", tmp_path / "counted"))
    read, write = os.pipe()

    def count() -> None:
        seen = gallery_builder.kill_at_statement(-1)
        switch(counted)
        os.write(write, str(seen[0]).encode())

    assert os.waitpid(gallery_builder.in_child(count), 0)[1] == 0
    statements = int(os.read(read, 20))
    done = stored(counted)
    assert done.keys() == old.keys()
    assert all(done[key] != old[key] for key in old)
    outcomes = []
    for killed in range(1, statements + 1, 3):
        folder = Path(shutil.copytree(tmp_path / "whole", tmp_path / f"killed-{killed}"))

        def die(folder: Path = folder, killed: int = killed) -> None:
            gallery_builder.kill_at_statement(killed)
            switch(folder)

        os.waitpid(gallery_builder.in_child(die), 0)
        now = stored(folder)
        outcomes.append(now == done)
        assert now in (old, done)
        assert gallery_builder.problems_in(folder) == [] or now == done
    assert {False, True} == set(outcomes)


def _made(gallery: Gallery) -> NewEmbeddings:
    """New embeddings of all faces: the old ones with the sign changed."""
    new = NewEmbeddings(gallery.folder, gallery.uuid, fake_fingerprint(gallery.dimension, "new"))
    with gallery.read() as now:
        ids, checks = now.all_crc32s()
    stored = reads(gallery).stored_faces(ids.tolist())
    new.store(
        [
            Remade(one.face.with_embedding(-one.face.embedding), int(check))  # type: ignore[operator]
            for one, check in zip(stored, checks, strict=True)
        ],
        gallery.read,
    )
    return new
