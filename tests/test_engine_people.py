"""People of a gallery, through `Face2Vec` and the command line, on drawn people."""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import is_in_use, posix_only, reads
from PIL import Image

from face2vec import Face2Vec, samples
from face2vec.calibration import Calibration
from face2vec.cli.main import main
from face2vec.errors import CalibrationError, GalleryError, OtherEditError, SettingsError
from face2vec.evaluation.fitting import calibration_on
from face2vec.evaluation.sets import photos_in
from face2vec.gallery import reader
from face2vec.gallery.rows import Readmitted, Removed
from face2vec.people.traces import traces
from face2vec.types import Person
from face2vec.watch.watcher import watch

PEOPLE, PHOTOS, LATER = 8, 5, 2
OTHERS = 20


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of drawn people, one folder per person, and two more of each in ``later``."""
    folder = tmp_path_factory.mktemp("photos")
    for number, person in enumerate(samples.people(PEOPLE, seed=21)):
        for photo in range(PHOTOS + LATER):
            file = folder / ("now" if photo < PHOTOS else "later") / f"{number}-{photo}.jpg"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(person.photo(photo).jpeg())
    return folder


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    """A calibration fitted on other drawn people."""
    folder = tmp_path_factory.mktemp("others")
    for number, person in enumerate(samples.people(OTHERS, seed=22)):
        (folder / f"{number}").mkdir()
        for photo in range(3):
            (folder / f"{number}" / f"{photo}.jpg").write_bytes(person.photo(photo).jpeg())
    return calibration_on(photos_in(folder), model="mini", data="drawn people")


@pytest.fixture(scope="module")
def built(photos: Path, fitted: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery with a calibration on drawn people, who differ less than real people."""
    folder = tmp_path_factory.mktemp("galleries") / "built"
    with Face2Vec(folder, model="mini") as engine:
        engine.add(photos / "now")
        engine.calibrate(fitted)
    return folder


@pytest.fixture
def gallery(built: Path, tmp_path: Path) -> Path:
    """A copy of the gallery that may be changed; its faces are not grouped yet."""
    return Path(shutil.copytree(built, tmp_path / "gallery"))


def run(*words: str | Path | int) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def drawn(engine: Face2Vec, person: Person) -> list[int]:
    """The drawn people whose photos a person has."""
    return [int(Path(one.photo).name.partition("-")[0]) for one in engine.faces_of(person)]


def largest(engine: Face2Vec) -> dict[int, Person]:
    """For each drawn person, the person of the gallery with most of their faces."""
    found: dict[int, Person] = {}
    for person in engine.people():
        who = Counter(drawn(engine, person)).most_common(1)[0][0]
        found.setdefault(who, person)
    return found


def test_find_people_groups_faces_by_person(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        done = engine.find_people()
        groups = [drawn(engine, person) for person in engine.people()]
        again = engine.find_people()
    pairs = [(a, b) for group in groups for i, a in enumerate(group) for b in group[:i]]
    assert np.mean([a == b for a, b in pairs]) > 0.9
    assert len(pairs) > 0.5 * PEOPLE * PHOTOS * (PHOTOS - 1) / 2
    assert done.people == done.new == len(groups)
    assert done.alone + done.doubtful == PEOPLE * PHOTOS - sum(map(len, groups))
    assert again == (done.people, 0, 0, done.alone, done.doubtful)


def test_find_people_leaves_out_uncertain_detections(
    gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Face2Vec(gallery) as engine:
        everyone = range(1, PEOPLE * PHOTOS + 1)
        gallery_now = reads(engine._session.gallery())
        stored = gallery_now.stored_faces(everyone, with_embeddings=False)
        sure = {one.face.id: one.face.parts.face for one in stored if one.face.parts}
        limit = float(np.median(list(sure.values())))
        monkeypatch.setattr(reader, "SURE_OPINION", limit)
        done = engine.find_people()
        grouped = {face for person in engine.people() for face in person.faces}
    assert done.doubtful == sum(one < limit for one in sure.values()) > 0
    assert grouped
    assert all(sure[face] >= limit for face in grouped)


def test_later_faces_join_people_and_numbers_stay(gallery: Path, photos: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        before = engine.people()
        engine.add(photos / "later")
        done = engine.find_people()
        after = {person.id: person for person in engine.people()}
        joined = [
            int(Path(one.photo).name.partition("-")[0]) == drawn(engine, old)[0]
            for old in before
            for one in engine.faces_of(after[old.id])
            if one.face.id not in old.faces
        ]
    assert all(set(old.faces) <= set(after[old.id].faces) for old in before)
    assert len(joined) == done.joined >= PEOPLE * LATER / 2
    assert np.mean(joined) > 0.9


def test_find_people_again_keeps_numbers_names_and_edits(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        one, other = engine.people()[:2]
        engine.name(one, "Ada")
        refused = other.faces[0]
        engine.this_person(one, one.faces[0])
        engine.not_this_person(other, refused)
        before = {person.faces: person.id for person in engine.people()}
        engine.find_people(again=True)
        after = {person.faces: person.id for person in engine.people()}
        assert engine.person("Ada").id == one.id
        assert one.faces[0] in engine.person("Ada").faces
        assert not any(p.id == other.id and refused in p.faces for p in engine.people())
    same = before.keys() & after.keys()
    assert len(same) > len(before) / 2
    assert all(before[faces] == after[faces] for faces in same)


def test_find_people_needs_a_calibration(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(photos / "now" / "0-0.jpg")
        with pytest.raises(CalibrationError, match="face2vec calibrate GALLERY --people PEOPLE"):
            engine.find_people()


def test_identify_names_only_known_people(gallery: Path, photos: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        for who, person in largest(engine).items():
            if who < PEOPLE // 2:
                engine.name(person, f"drawn {who}")
        right = wrong = 0
        for photo in sorted((photos / "later").iterdir()):
            (found,) = engine.identify(photo)
            who = int(photo.name.partition("-")[0])
            expected = f"drawn {who}" if who < PEOPLE // 2 else "unknown"
            right, wrong = right + (found.label == expected), wrong + (found.label != expected)
            assert 0 <= found.probability <= 1
            assert len(found.candidates) <= 3
            assert sum(share for _, share in found.candidates) <= 1 + 1e-9
        sure = engine.identify(photos / "now" / "0-0.jpg", at_least=1)
        (alone,) = engine.identify(photos / "now" / "0-0.jpg", candidates=0)
    assert (alone.label, alone.candidates) == ("drawn 0", ())
    assert right > 2 * wrong
    assert sure[0].person is None


def test_identify_reads_the_faces_of_named_people_once(gallery: Path, photos: Path) -> None:
    photo = photos / "now" / "0-0.jpg"
    with Face2Vec(gallery) as engine:
        engine.find_people()
        people = largest(engine)
        engine.name(people[0], "Ada")
        first = engine.identify(photo)
        known = engine._session.known_faces
        assert repr(engine.identify(photo)) == repr(first)
        assert engine._session.known_faces is known
        engine.name(people[1], "Grace")
        engine.identify(photo)
        assert known is not None
        assert set(engine._session.known_faces.ids) == {*known.ids, *people[1].faces}
        engine.forget("Ada")
        assert engine._session.known_faces is None
        (found,) = engine.identify(photo)
    assert {person.name for person, _ in found.candidates} == {"Grace"}


@pytest.mark.parametrize(("command", "function"),
                         [("identify", Face2Vec.identify), ("watch", watch)])  # fmt: skip
def test_commands_name_people_from_the_same_probability_as_python(
    command: str, function: Callable[..., object]
) -> None:
    (option,) = (one for one in main.commands[command].params if one.name == "at_least")
    assert option.default == inspect.signature(function).parameters["at_least"].default


def test_identify_without_named_people_identifies_nobody(gallery: Path, photos: Path) -> None:
    with Face2Vec(gallery) as engine:
        (found,) = engine.identify(photos / "now" / "0-0.jpg")
    assert (found.person, found.probability, found.candidates) == (None, 1.0, ())


def test_name_face_names_a_person_whose_faces_were_all_confirmed(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        person = engine.people()[0]
        engine.this_person(person, *person.faces)
        named = engine.name_face(person.faces[0], "Ada")
        assert (named.id, named.name) == (person.id, "Ada")
        assert engine.undo() == f"enrolment of face {person.faces[0]} as 'Ada'"
        assert engine.person(person.id).name is None


@pytest.fixture
def portraits(photos: Path, tmp_path: Path) -> Path:
    """A folder of photos for each of two drawn people, and what cannot be enrolled."""
    folder = tmp_path / "portraits"
    for name, number in (("Ada", 0), ("Grace", 1)):
        (folder / name).mkdir(parents=True)
        for photo in range(PHOTOS, PHOTOS + LATER):
            shutil.copy(photos / "later" / f"{number}-{photo}.jpg", folder / name)
    (folder / "Grace" / f"1-{PHOTOS + 1}.jpg").unlink()
    Image.new("RGB", (90, 90), "teal").save(folder / "Ada" / "wall.png")
    (folder / "Ada" / "half.png").write_bytes((folder / "Ada" / "wall.png").read_bytes()[:60])
    return folder


def test_enroll_names_the_people_of_folders_and_undo_takes_it_back(
    gallery: Path, portraits: Path
) -> None:
    with Face2Vec(gallery) as engine:
        done = engine.enroll(portraits)
        assert [(one.name, len(one.faces)) for one in done.people] == [("Ada", 2), ("Grace", 1)]
        of_ada = [one.photo for one in engine.faces_of("Ada")]
        assert of_ada == [str(portraits / "Ada" / f"0-{n}.jpg") for n in (PHOTOS, PHOTOS + 1)]
        assert done.faces[of_ada[0]] == done.people[0].faces[0]
        assert dict(done.without) == {
            str(portraits / "Ada" / "half.png"): "truncated",
            str(portraits / "Ada" / "wall.png"): "no face",
        }
        assert (done.added.added, len(done.added.unreadable)) == (4, 1)
        (who,) = engine.identify(portraits / "Grace" / f"1-{PHOTOS}.jpg")
        assert who.label == "Grace"
        again = engine.enroll(portraits)
        assert (again.people, again.faces) == (done.people, done.faces)
        assert dict(again.without) == dict(done.without)
        assert engine.undo() == "enrolment of 3 faces as 2 people"
        assert engine.people() == []
        assert engine.info()["photos"] == PEOPLE * PHOTOS + 5


def test_enroll_takes_the_largest_sure_face(
    gallery: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = (Image.open(photos / "later" / f"{n}-{PHOTOS}.jpg") for n in (2, 3))
    both = Image.new("RGB", (small.width + large.width * 2, large.height * 2))
    both.paste(small, (0, 0))
    both.paste(large.resize((large.width * 2, large.height * 2)), (small.width, 0))
    both.save(tmp_path / "both.png")
    with Face2Vec(gallery) as engine:
        done = engine.enroll({"Ada": tmp_path / "both.png"})
        (face,) = engine.faces_of("Ada")
        others = engine.encode(tmp_path / "both.png")
        assert face.face.area == max(one.area for one in others)
        assert len(others) == 2
        assert done.without == ()
        engine.undo()
        monkeypatch.setattr("face2vec.types.SURE_OPINION", 1.1)
        done = engine.enroll({"Ada": tmp_path / "both.png"})
        assert (done.people, done.faces) == ((), {})
        assert done.without == ((str(tmp_path / "both.png"), "no sure face"),)


def test_enroll_refuses_one_photo_for_two_names(gallery: Path, portraits: Path) -> None:
    copy = portraits / "Grace" / "copy.jpg"
    original = portraits / "Ada" / f"0-{PHOTOS}.jpg"
    shutil.copy(original, copy)
    with Face2Vec(gallery) as engine:
        done = engine.enroll(portraits)
        assert [(one.name, len(one.faces)) for one in done.people] == [("Ada", 1), ("Grace", 1)]
    reason = "the same photo is given for 'Ada' and 'Grace'"
    assert dict(done.without)[str(copy)] == dict(done.without)[str(original)] == reason


def test_enroll_checks_names_before_photos_are_added(gallery: Path, portraits: Path) -> None:
    (portraits / "Ada").rename(portraits / "007")
    with Face2Vec(gallery) as engine:
        with pytest.raises(SettingsError, match="'007' cannot be a name"):
            engine.enroll(portraits)
        assert engine.info()["photos"] == PEOPLE * PHOTOS


def test_name_face_names_its_group_or_a_new_person(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        grouped = engine.people()[0]
        assert engine.name_face(grouped.faces[1], "Ada") == Person(grouped.id, "Ada", grouped.faces)
        alone = next(n for n in range(1, PEOPLE * PHOTOS) if n not in grouped.faces)
        engine.not_this_person("Ada", grouped.faces[0])
        assert engine.name_face(grouped.faces[0], "Grace").faces == (grouped.faces[0],)
        assert set(engine.name_face(alone, "Ada").faces) == {*grouped.faces[1:], alone}
        with pytest.raises(SettingsError, match=r"ids of faces in the gallery, not \(9999,\)"):
            engine.name_face(9999, "Ada")


def test_enroll_command_reads_a_table_and_says_what_has_no_face(
    gallery: Path, portraits: Path
) -> None:
    table = portraits / "people.csv"
    table.write_text(f"name,photo\nAda,Ada/0-{PHOTOS}.jpg\nGrace,Ada/wall.png\n", encoding="utf-8")
    done = run("enroll", gallery, table, "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert [person["name"] for person in told["people"]] == ["Ada"]
    assert [face["photo"] for face in told["faces"]] == [str(portraits / "Ada" / f"0-{PHOTOS}.jpg")]
    assert told["without"] == [{"photo": str(portraits / "Ada" / "wall.png"), "reason": "no face"}]
    assert "1 person, 1 photo\n1 photo without a face that could be named:\n" in done.stderr
    number = told["faces"][0]["face"]
    assert run("undo", gallery).stderr == f"undone: enrolment of face {number} as 'Ada'\n"
    table.write_text(f"name,photo\nAda,Ada/0-{PHOTOS}.jpg\n", encoding="utf-8")
    assert run("enroll", gallery, table, "--quiet").exit_code == 0


def test_name_command_names_a_face_by_its_number(gallery: Path) -> None:
    assert run("name", gallery, 7, "Ada", "--face").stderr == "person 1: Ada\n"
    with Face2Vec(gallery) as engine:
        assert engine.people() == [Person(1, "Ada", (7,))]
    for words in ((7,), ("Ada", "Grace")):
        refused = run("name", gallery, *words, "--face")
        assert refused.exit_code == 2
        assert "--face needs the number of a face and a name" in refused.stderr


def test_merge_refuses_a_person_given_twice(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        first = engine.people()[0]
        for others in ((), (first,), (2, 2)):
            with pytest.raises(SettingsError, match="each of them once"):
                engine.merge(first, *others)
        with pytest.raises(SettingsError, match="ids of faces in the gallery"):
            engine.this_person(first, 9999)


def test_merged_person_no_longer_exists(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        first, second = engine.people()[:2]
        engine.merge(first, second)
        for ask in (
            lambda: engine.merge(first, second),
            lambda: engine.name(second, "Eve"),
            lambda: engine.faces_of(second),
        ):
            with pytest.raises(GalleryError, match=f"no person {second.id}"):
                ask()
        assert engine.undo() == (
            f"merge of person {second.id} (unnamed) into person {first.id} (unnamed)"
        )


def test_name_must_be_valid_text(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        with pytest.raises(SettingsError, match=r"'no \\udcff' cannot be a name: it is not valid"):
            engine.name(1, "no \udcff")
        with pytest.raises(GalleryError, match="no edit to undo"):
            engine.undo()


def test_forget_ignores_letters_of_a_name_that_occur_by_chance(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        last = engine.people()[-1]
        (kept, *_) = reads(engine._session.gallery()).stored_faces(last.faces)
        by_chance = re.search(rb"[A-Za-z]{2}", np.asarray(kept.face.embedding).tobytes())
        assert by_chance is not None
        person = engine.name(engine.people()[0], by_chance[0].decode())
        assert [what for what in traces(gallery, person, []) if "name" in what]
        assert engine.forget(person).left == ()


@pytest.mark.parametrize("name", ["Jo", "Zoë Nobody", "Ada " + 80 * "von "])
def test_traces_finds_every_stored_form_of_a_name(gallery: Path, tmp_path: Path, name: str) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        person = engine.name(1, name)
        said = shutil.copytree(gallery, tmp_path / "said")
        engine.name(1, None)  # the name remains in earlier edits only
        assert engine.person(1).name is None
    for folder in (said, gallery):
        assert list(traces(folder, person, [])) == ["the name of person 1 in gallery.sqlite"]


def test_photo_overwritten_with_a_forgotten_photo_is_removed(gallery: Path, photos: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        ada, other = engine.people()[:2]
        (shown, *_), (kept, *_) = engine.faces_of(ada), engine.faces_of(other)
        engine.forget(ada)
        before, was = engine.info()["faces"], Path(kept.photo).read_bytes()
        try:
            Path(kept.photo).write_bytes(Path(shown.photo).read_bytes())
            assert engine.add(kept.photo).forgotten == 1
            assert engine.info()["faces"] == before - 1
            assert reads(engine._session.gallery()).faces_of(kept.photo) == []
        finally:
            Path(kept.photo).write_bytes(was)


@posix_only
def test_forget_leaves_the_gallery_in_use(gallery: Path) -> None:
    """Otherwise another process takes the files of SQLite for unused, and searches fail here."""
    with Face2Vec(gallery) as engine:
        engine.find_people()
        assert is_in_use(gallery)
        engine.forget(1)
        assert is_in_use(gallery)


def test_forget_leaves_no_traces_and_blocks_the_photos(gallery: Path, photos: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.rebuild()
        engine.find_people()
        person = engine.name(engine.people()[0], "Ada Nobody")
        stored = reads(engine._session.gallery()).stored_faces(person.faces)
        assert list(traces(gallery, person, stored))
        faces = engine.info()["faces"]
        done = engine.forget("Ada Nobody")
        assert done.left == ()
        assert list(traces(gallery, person, stored)) == []
        assert done.faces == len(person.faces) == faces - engine.info()["faces"]
        assert engine.check() == []
        with pytest.raises(GalleryError, match="no person"):
            engine.person("Ada Nobody")
        again = engine.add(photos / "now")
    assert again.forgotten == done.photos == done.faces
    assert (again.added, again.faces) == (0, 0)


def test_ignored_face_is_not_found_until_undo(gallery: Path, photos: Path) -> None:
    query = photos / "now" / "0-0.jpg"
    with Face2Vec(gallery) as engine:
        match = engine.search(query, k=1)[0].matches[0]
        assert match.photo == str(query)
        assert engine.ignore(match.face.id) == Removed(0, 1)
        assert engine.search(query, k=1)[0].matches[0].photo != str(query)
        os.utime(query)
        assert engine.add(photos / "now").faces == 0
        engine.rebuild()
        assert engine.search(query, k=1)[0].matches[0].photo != str(query)
        with pytest.raises(SettingsError, match="give ids of faces to ignore"):
            engine.ignore()
    assert run("undo", gallery).stderr == f"undone: ignoring of face {match.face.id}\n"
    with Face2Vec(gallery) as engine:
        again = engine.search(query, k=1)[0].matches[0]
        assert (again.photo, again.face.id) == (match.photo, match.face.id)
        assert engine.check() == []
    assert run("ignore", gallery, match.face.id).stderr == "1 face ignored\n"


def test_readmitted_photos_are_indexed_again(gallery: Path, photos: Path) -> None:
    query = photos / "now" / "0-0.jpg"
    with Face2Vec(gallery) as engine:
        ada = engine.this_person(None, *(m.face.id for m in engine.search(query, k=1)[0].matches))
        assert engine.forget(ada).photos == 1
        assert engine.add(query).forgotten == 1
        with pytest.raises(GalleryError, match="none of these has a forgotten or ignored face"):
            engine.readmit(photos / "now" / "1-0.jpg")
    done = run("readmit", gallery, query)
    assert done.stderr.splitlines()[0] == "1 photo readmitted, 0 faces added"
    with Face2Vec(gallery) as engine:
        assert engine.add(query).added == 1
        match = engine.search(query, k=1)[0].matches[0]
        assert match.photo == str(query)
        engine.ignore(match.face.id)
        assert engine.readmit(query) == Readmitted(1, 1)
        assert engine.search(query, k=1)[0].matches[0].similarity == pytest.approx(1, abs=1e-5)
        assert engine.check() == []


def test_people_command_lists_people_of_a_gallery_that_can_only_be_read(
    gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run("people", gallery).stdout

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("face2vec.gallery.connection.FileLock.acquire", refuse)
    done = run("people", gallery)
    assert (done.exit_code, done.stdout) == (0, before)
    assert done.stderr.startswith("new faces are not grouped: the gallery ")
    again = run("people", gallery, "--again")
    assert (again.exit_code, again.stdout) == (3, "")


def test_people_command_writes_text_json_and_a_page(gallery: Path, tmp_path: Path) -> None:
    page = tmp_path / "people.html"
    done = run("people", gallery, "--most", 3, "--html", page)
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 4
    assert "people, " in done.stderr
    assert page.read_text(encoding="utf-8").count('<h2 id="person-') == 3
    listed = [json.loads(line) for line in run("people", gallery, "--json").stdout.splitlines()]
    assert [len(one["faces"]) for one in listed] == sorted(
        (len(one["faces"]) for one in listed), reverse=True
    )
    assert set(listed[0]["faces"][0]) == {"face", "photo", "box", "time"}


def test_people_commands_edit_and_undo(gallery: Path) -> None:
    run("people", gallery)
    assert "person 1: Ada" in run("name", gallery, 1, "Ada").stderr
    before = {p.id: p.faces for p in Face2Vec(gallery).people()}
    assert run("merge", gallery, "Ada", 2).exit_code == 0
    face = before[2][0]
    assert run("split", gallery, "Ada", face).exit_code == 0
    assert run("not-this-person", gallery, "Ada", before[2][1]).exit_code == 0
    assert run("this-person", gallery, "Ada", before[2][1]).exit_code == 0
    for _ in range(4):
        assert run("undo", gallery).stderr.startswith("undone: ")
    with Face2Vec(gallery) as engine:
        assert {p.id: p.faces for p in engine.people()} == before
        assert engine.person("Ada").id == 1


def test_identify_command_prints_people(gallery: Path, photos: Path) -> None:
    run("people", gallery)
    with Face2Vec(gallery) as engine:
        person = largest(engine)[0]
        engine.name(person, "Ada")
        photo = engine.faces_of(person)[0].photo
    done = run("identify", gallery, photo)
    assert done.exit_code == 0
    assert ": Ada, " in done.stdout
    facts = json.loads(run("identify", gallery, photo, "--json").stdout)
    assert (facts["name"], facts["person"]) == ("Ada", person.id)
    assert run("identify", gallery, photo, "--at-least", 1).exit_code in (0, 1)
    assert run("identify", gallery, photos / "none.jpg").exit_code == 3


def test_forget_command_asks_and_reports_no_traces(gallery: Path) -> None:
    run("people", gallery)
    refused = CliRunner().invoke(main, ["forget", str(gallery), "1"], input="n\n")
    assert refused.exit_code == 130
    assert "nothing was deleted" in refused.stderr
    done = run("forget", gallery, 1, "--yes")
    assert done.exit_code == 0
    assert "nothing is left" in done.stderr
    assert run("forget", gallery, 1, "--yes").exit_code == 3


# --- suggestions -----------------------------------------------------------------------------


def who_is(engine: Face2Vec, face: int) -> int:
    """The drawn person of a face."""
    with engine.snapshot() as now:
        (one,) = now.stored_faces([face], with_embeddings=False)
    return int(Path(one.photo).name.partition("-")[0])


def test_suggestions_join_what_was_split(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        person = engine.people()[0]
        with engine._session.write() as writer:  # as if grouping had missed them
            writer.people.assign({}, [person.faces[:2], person.faces[2:]], again=True)
        parts = {one.id: one for one in engine.people()}
        (found,) = [
            one for one in engine.suggest() if {one.first.person, one.second.person} == set(parts)
        ]
        assert found.probability > 0.5
        assert (found.first.count, found.second.count) == (len(person.faces) - 2, 2)
        assert set(found.second.shown) == set(person.faces[:2])
        merged = engine.answer(found, True)
        assert merged is not None
        assert merged.faces == person.faces
        assert engine.undo().startswith("merge of")
        assert {one.id: one for one in engine.people()} == parts


def test_undo_of_one_edit_by_two_programs_happens_once(gallery: Path) -> None:
    with Face2Vec(gallery) as engine, Face2Vec(gallery) as other:
        engine.find_people()
        first, second, *_ = engine.people()
        engine.name(first, "Ada")
        engine.name(second, "Grace")
        (shown,) = other.edits(1)
        assert engine.undo(shown) == "name 'Grace' of person " + str(second.id)
        with pytest.raises(OtherEditError, match=r"nothing was undone: .*name 'Ada'"):
            other.undo(shown)
        assert other.person("Ada").id == first.id
        with pytest.raises(SettingsError, match="expected must be an Edit"):
            other.undo("name 'Ada'")  # type: ignore[arg-type]


def test_suggestions_are_mostly_right_and_best_first(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        found = engine.suggest()  # nobody is grouped yet
        right = [
            who_is(engine, o.first.shown[0]) == who_is(engine, o.second.shown[0]) for o in found
        ]
        chances = [one.probability for one in found]
    assert np.mean(right[:20]) > 0.9
    assert chances == sorted(chances, reverse=True)
    assert all(one.first.person is None and one.first.count == 1 for one in found)


def test_answer_no_is_respected_by_every_later_grouping(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        pair = engine.people()[0].faces[:2]
        engine.different(*pair)
        for method in ("average", "agglomerative", "dbscan", "chinese-whispers"):
            engine.find_people(again=True, method=method)
            for person in engine.people():
                assert not set(pair) <= set(person.faces), method
        assert (
            engine.undo()
            == f"statement that face {pair[0]} and face {pair[1]} are different people"
        )
        engine.find_people(again=True)
        assert any(set(pair) <= set(person.faces) for person in engine.people())


def test_answer_no_is_not_asked_again(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        first, *rest = engine.suggest()
        assert engine.answer(first, False) is None
        assert engine.suggest()[: len(rest)] == rest
        with engine.snapshot() as now:
            pairs = {(first.first.shown[0], first.second.shown[0])}
            assert now.apart() == {(min(pair), max(pair)) for pair in pairs}


def test_answer_yes_about_faces_without_a_person_makes_one(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        first = engine.suggest()[0]
        person = engine.answer(first, True)
        assert person is not None
        assert set(person.faces) == {*first.first.shown, *first.second.shown}


def test_last_word_about_a_pair_counts(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.different(1, 2)
        engine.this_person(None, 1, 2)
        with engine.snapshot() as now:
            assert now.apart() == set()
        engine.undo()
        with engine.snapshot() as now:
            assert now.apart() == {(1, 2)}


def test_hidden_people_and_different_names_are_not_suggested(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        person = engine.people()[0]
        with engine._session.write() as writer:
            writer.people.assign({}, [person.faces[:2], person.faces[2:]], again=True)
        one, other = engine.people()

        def is_suggested() -> bool:
            return any(
                {o.first.person, o.second.person} == {one.id, other.id} for o in engine.suggest()
            )

        assert is_suggested()
        engine.hide(one)
        assert engine.person(one.id).hidden
        assert not is_suggested()
        engine.hide(one, False)
        assert is_suggested()
        engine.name(one, "Ada")
        assert is_suggested()
        engine.name(other, "Bob")
        assert not is_suggested()


def test_name_that_somebody_has_changed_stays(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        person = engine.people()[0]
        assert engine.name(person, "Ada", was=None).name == "Ada"
        with pytest.raises(GalleryError, match=f"person {person.id} has the name 'Ada' now"):
            engine.name(person, "Bea", was=None)
        assert engine.name(person, "Bea", was="Ada").name == "Bea"
        assert engine.name(person, "Cleo").name == "Cleo"
        engine.name(person, None)
        with pytest.raises(GalleryError, match=f"person {person.id} has no name now"):
            engine.name(person, "Dan", was="Cleo")
        assert len(engine.edits()) == 4


def test_several_people_are_hidden_in_one_edit(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        one, other = engine.people()[:2]
        engine.name(one, "Ada")
        hidden = engine.hide_people(["Ada", other, other.id])
        assert [(person.id, person.hidden) for person in hidden] == [
            (one.id, True),
            (other.id, True),
        ]
        assert engine.hide_people([other])[0].hidden  # as it is: no edit
        (last,) = engine.edits(1)
        assert last.what == "hiding of 2 people"
        assert engine.undo() == "hiding of 2 people"
        assert not engine.person("Ada").hidden
        assert not engine.person(other.id).hidden
        engine.hide(other)
        assert not engine.hide_people([other], False)[0].hidden
        assert engine.edits(1)[0].what == f"showing of person {other.id} (unnamed)"


def test_hiding_several_people_changes_nothing_if_one_is_missing(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        before, edits = engine.people(), engine.edits()
        with pytest.raises(GalleryError, match="there is no person 'Nobody'"):
            engine.hide_people([before[0], "Nobody"])
        assert (engine.people(), engine.edits()) == (before, edits)


def test_merge_keeps_the_first_name_if_asked_to(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        one, other = engine.people()[:2]
        engine.name(one, "Ada")
        engine.name(other, "Bob")
        with pytest.raises(GalleryError, match="different names"):
            engine.merge("Ada", "Bob")
        merged = engine.merge("Ada", "Bob", keep_name=True)
        assert (merged.name, len(merged.faces)) == ("Ada", len(one.faces) + len(other.faces))
        engine.undo()
        assert engine.person("Bob").faces == other.faces


def test_new_person_gets_the_name_in_the_same_edit(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        edits = len(engine.edits())
        person = engine.this_person(None, 1, 2, name=" Eve ")
        assert (person.name, person.faces) == ("Eve", (1, 2))
        assert [one.what for one in engine.edits()][: len(engine.edits()) - edits] == [
            "enrolment of 2 faces as 'Eve'"
        ]
        with pytest.raises(GalleryError, match="already has the name 'Eve'"):
            engine.this_person(None, 3, name="Eve")
        with pytest.raises(SettingsError, match="cannot be a name"):
            engine.this_person(None, 3, name="7")
        with pytest.raises(SettingsError, match="not both"):
            engine.this_person(person, 3, name="Mallory")
        engine.undo()
        with pytest.raises(GalleryError, match="no person 'Eve'"):
            engine.person("Eve")


def test_cover_goes_with_its_face(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        person = engine.people()[0]
        face = person.faces[-1]
        assert engine.choose_cover(person, face).cover == face
        with pytest.raises(GalleryError, match="does not belong"):
            engine.choose_cover(engine.people()[1], face)
        engine.not_this_person(person, face)
        assert engine.person(person.id).cover is None
        engine.undo()
        assert engine.person(person.id).cover == face


def test_suggest_hide_different_and_edits_commands(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        known = engine.suggest(3)
    done = run("people", gallery, "--suggest", "--most", 3, "--json")
    assert [json.loads(line)["probability"] for line in done.stdout.splitlines()] == [
        one.probability for one in known
    ]
    words = run("people", gallery, "--suggest", "--most", 1).stdout
    assert f"face {known[0].first.shown[0]}, nobody yet" in words
    assert run("different", gallery, 1, 2).exit_code == 0
    assert run("different", gallery, 1, 1).exit_code == 3
    run("people", gallery)
    assert "hidden" in run("hide", gallery, 1).stderr
    assert "shown" in run("hide", gallery, 1, "--show").stderr
    assert run("hide", gallery, 1, 2).stderr.count("hidden") == 2
    assert run("undo", gallery).stderr.strip() == "undone: hiding of 2 people"
    edits = [json.loads(line) for line in run("edits", gallery, "--json").stdout.splitlines()]
    assert [one["what"].split()[0] for one in edits] == ["showing", "hiding", "statement"]
    assert all(isinstance(one["made"], int) for one in edits)
    assert "statement that face 1 and face 2" in run("edits", gallery).stdout


def test_names_are_stored_without_spaces_around_them(gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        engine.find_people()
        first, second = engine.people()[:2]
        assert engine.name(first, " Ada ").name == "Ada"
        with pytest.raises(GalleryError, match="already has the name 'Ada'"):
            engine.name(second, "Ada\u00a0")
        assert engine.name_face(second.faces[0], "Ada ").id == first.id
        assert engine.name(second, "\u0645\u06cc\u200c\u0631\u0648\u062f").name is not None


@pytest.mark.parametrize("place", ["", " "])
def test_empty_place_of_a_gallery_is_refused(place: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="gallery must be the path of a folder"):
        Face2Vec(place)
    done = run("index", tmp_path, "--gallery", place)
    assert done.exit_code == 2
    assert "it is empty; give a path" in done.stderr


def test_address_of_a_service_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (("index", tmp_path, "--gallery"), ("people",), ("check",)):
        done = run(*words, "http://127.0.0.1:8000/?token=secret")
        assert done.exit_code == 3
        assert "takes a path, not the address of a service" in done.stderr
        assert "secret" not in done.stderr
    assert list(tmp_path.iterdir()) == []
