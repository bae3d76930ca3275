"""People in a gallery's rows: what is said of them, taken back, and forgotten."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import fake_fingerprint, reads, state_of

from face2vec.errors import GalleryError, OtherEditError, SettingsError
from face2vec.gallery.audit import problems
from face2vec.gallery.gallery import Gallery
from face2vec.gallery.people import PeopleWriter
from face2vec.gallery.rows import INDEXED, NO_FACE, Entry
from face2vec.gallery.writer import Writer
from face2vec.types import Edit, Face, Person

DIMENSION = 16
POINTS = ((1.0, 1.0), (2.0, 1.0), (1.5, 2.0), (1.0, 3.0), (2.0, 3.0))
TABLES = ("people", "memberships", "refusals")


def face(number: int, left: float = 0.0) -> Face:
    embedding = np.random.default_rng(number).standard_normal(DIMENSION).astype(np.float32)
    embedding /= np.linalg.norm(embedding)
    points = tuple((x + number, y) for x, y in POINTS)
    return Face((left, 0.0, left + 10.0, 10.0), points, 0.99, embedding)


def photo(root: Path, name: str, *faces: Face) -> Entry:
    sha256 = hashlib.sha256(name.encode()).digest()
    return Entry(str(root), name, 1, 1, sha256, 40, 40, INDEXED if faces else NO_FACE, "", faces)


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    """Faces 1 to 6: each alone in its photo but 5 and 6, who are in one."""
    with Gallery.create(tmp_path / "g", fake_fingerprint(DIMENSION)) as made:
        with made.write() as writer:
            writer.record([photo(tmp_path, f"{n}.jpg", face(n)) for n in range(1, 5)])
            writer.record([photo(tmp_path, "two.jpg", face(5), face(6, left=20.0))])
        yield made


def rows(gallery: Gallery) -> dict[str, list[tuple[object, ...]]]:
    """All that the tables say of people."""
    with sqlite3.connect(gallery.folder / "gallery.sqlite") as connection:
        found = {
            name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall()
            for name in TABLES
        }
    connection.close()
    return found


def edit(gallery: Gallery, what: Callable[[PeopleWriter], object]) -> None:
    with gallery.write() as writer:
        what(writer.people)


def change(gallery: Gallery, what: Callable[[Writer], object]) -> None:
    with gallery.write() as writer:
        what(writer)


def two_people(gallery: Gallery) -> None:
    edit(gallery, lambda g: g.assign({}, [[1, 2, 3], [4, 5]]))


def test_people_are_sorted_by_number_of_faces(gallery: Gallery) -> None:
    edit(gallery, lambda g: g.assign({}, [[4], [1, 2, 3]]))
    assert reads(gallery).people() == [Person(2, None, (1, 2, 3)), Person(1, None, (4,))]
    edit(gallery, lambda g: g.assign({1: [5, 6]}, []))
    assert reads(gallery).person(1).faces == (4, 5, 6)


def test_person_is_found_by_number_and_name(gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(2, "Ada"))
    assert [reads(gallery).person(who).id for who in (1, 2, "2", "1", "Ada")] == [1, 2, 2, 1, 2]
    with pytest.raises(GalleryError, match=r"no person 'Eve' .* face2vec people"):
        reads(gallery).person("Eve")


JOSE = {form: unicodedata.normalize(form, "José") for form in ("NFC", "NFD")}


@pytest.mark.parametrize(("typed", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_person_is_found_by_the_name_in_another_normal_form(
    gallery: Gallery, typed: str, asked: str
) -> None:
    assert JOSE[typed] != JOSE[asked]
    two_people(gallery)
    edit(gallery, lambda g: g.name(1, JOSE[typed]))
    found = reads(gallery).person(JOSE[asked])
    assert (found.id, found.name) == (1, JOSE[typed])
    with pytest.raises(GalleryError, match="person 1 already has the name"):
        edit(gallery, lambda g: g.name(2, JOSE[asked]))
    edit(gallery, lambda g: g.name(1, JOSE[asked]))
    assert reads(gallery).person(JOSE[typed]).name == JOSE[asked]


def test_names_in_two_normal_forms_from_an_older_version_can_be_merged(gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(1, JOSE["NFC"]))
    with sqlite3.connect(gallery.folder / "gallery.sqlite") as connection:
        connection.execute("UPDATE people SET name = ? WHERE id = 2", (JOSE["NFD"],))
    connection.close()
    assert [reads(gallery).person(JOSE[form]).id for form in ("NFC", "NFD")] == [1, 2]
    edit(gallery, lambda g: g.merge(1, [2]))
    assert reads(gallery).people()[0] == Person(1, JOSE["NFC"], (1, 2, 3, 4, 5))


@pytest.mark.parametrize("name", ["1", " 12 ", "", "  "])
def test_name_is_neither_empty_nor_a_number(gallery: Gallery, name: str) -> None:
    two_people(gallery)
    with pytest.raises(SettingsError, match="cannot be a name"):
        edit(gallery, lambda g: g.name(2, name))
    assert [person.name for person in reads(gallery).people()] == [None, None]


def test_person_refuses_an_ambiguous_name(gallery: Gallery) -> None:
    two_people(gallery)
    with sqlite3.connect(gallery.folder / "gallery.sqlite") as older:
        older.execute("UPDATE people SET name = '2' WHERE id = 1")
    older.close()
    with pytest.raises(GalleryError, match=r"'2' is the name of one person .* number of another"):
        reads(gallery).person("2")
    assert (reads(gallery).person(2).id, reads(gallery).person("1").id) == (2, 1)


def test_name_is_one_persons_only(gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(1, "Ada"))
    edit(gallery, lambda g: g.name(1, "Ada"))
    with pytest.raises(GalleryError, match="person 1 already has the name 'Ada'"):
        edit(gallery, lambda g: g.name(2, "Ada"))
    edit(gallery, lambda g: g.name(1, None))
    assert reads(gallery).person(1).name is None


def test_merge_keeps_the_first_number_and_the_only_name(gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.rule_out(2, [4]))
    edit(gallery, lambda g: g.name(2, "Ada"))
    edit(gallery, lambda g: g.merge(1, [2]))
    assert reads(gallery).people() == [Person(1, "Ada", (1, 2, 3, 5))]
    assert rows(gallery)["refusals"] == [(4, 1)]
    assert {said for _, _, said in rows(gallery)["memberships"]} == {1}


def test_merge_of_two_names_is_refused(gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(1, "Ada"))
    edit(gallery, lambda g: g.name(2, "Eve"))
    before = rows(gallery)
    with pytest.raises(GalleryError, match="different names: Ada, Eve"):
        edit(gallery, lambda g: g.merge(1, [2]))
    assert rows(gallery) == before


def test_split_moves_faces_to_a_new_person(gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.split(1, [2, 3]))
    assert reads(gallery).people() == [Person(2, None, (4, 5)), Person(3, None, (2, 3)),
                                Person(1, None, (1,))]  # fmt: skip
    assert rows(gallery)["refusals"] == [(2, 1), (3, 1)]
    with pytest.raises(GalleryError, match="face 4 does not belong to person 1"):
        edit(gallery, lambda g: g.split(1, [1, 4]))


@pytest.mark.parametrize(
    "what",
    [
        lambda g: g.name(1, "Eve"),
        lambda g: g.name(1, None),
        lambda g: g.merge(1, [2]),
        lambda g: g.merge(2, [1]),
        lambda g: g.split(1, [2]),
        lambda g: g.rule_out(2, [4, 5]),
        lambda g: g.confirm(1, [4, 6]),
        lambda g: g.confirm(None, [1, 6]),
    ],
)
def test_undo_restores_the_previous_state(
    gallery: Gallery, what: Callable[[Gallery], object]
) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(1, "Ada"))
    edit(gallery, lambda g: g.rule_out(1, [3]))
    before = rows(gallery)
    edit(gallery, what)
    assert rows(gallery) != before
    edit(gallery, lambda g: g.undo())
    assert rows(gallery) == before


def test_undo_reverts_all_edits_and_names_them(gallery: Gallery) -> None:
    two_people(gallery)
    before = rows(gallery)
    edit(gallery, lambda g: g.split(1, [2]))
    edit(gallery, lambda g: g.name(3, "Ada"))
    edit(gallery, lambda g: g.merge(2, [3]))
    said: list[str] = []
    for _ in range(3):
        edit(gallery, lambda g: said.append(g.undo()))
    assert said == [
        "merge of Ada (person 3) into person 2 (unnamed)",
        "name 'Ada' of person 3",
        "split of face 2 from person 1 (unnamed)",
    ]
    assert rows(gallery) == before
    with pytest.raises(GalleryError, match="no edit to undo"):
        edit(gallery, lambda g: g.undo())


def test_undo_of_an_expected_edit_undoes_it_or_nothing(gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(1, "Ada"))
    (named,) = reads(gallery).edits(1)
    edit(gallery, lambda g: g.name(2, "Grace"))
    before = rows(gallery)
    for expected in (named, Edit("name 'Grace' of person 2", 1)):
        with pytest.raises(OtherEditError, match="the last edit is now: name 'Grace'") as raised:
            edit(gallery, lambda g, expected=expected: g.undo(expected))  # type: ignore[misc]
        assert [Edit(raised.value.what, raised.value.made)] == reads(gallery).edits(1)
        assert rows(gallery) == before
    edit(gallery, lambda g: g.undo())
    edit(gallery, lambda g: g.undo(named))
    with pytest.raises(OtherEditError, match="no edit to undo any more") as raised:
        edit(gallery, lambda g: g.undo(named))
    assert raised.value.what is None


@pytest.mark.parametrize(
    "typed",
    [
        "ada lovelace",
        "Ada\u200b Lovelace",
        "Ada\u00a0Lovelace",
        "ADA  LOVELACE",
        "Ada Love\u00adlace",
    ],
)
def test_name_that_can_hardly_be_told_from_another_is_refused(typed: str, gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(1, "Ada Lovelace"))
    with pytest.raises(
        GalleryError, match="person 1 has the name 'Ada Lovelace', which can hardly"
    ):
        edit(gallery, lambda g: g.name(2, typed))
    edit(gallery, lambda g: g.name(1, typed))  # of the person themselves
    assert reads(gallery).person(1).name == typed


@pytest.mark.parametrize(
    "typed", ["Ada\u200b", "\ufeff Ada \u2060", "Ada\u00a0\ufe0f", " Ada\u3000"]
)
def test_name_has_nothing_unseen_at_its_ends(typed: str, gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(1, typed))
    assert reads(gallery).person(1).name == "Ada"
    with pytest.raises(GalleryError, match="person 1 already has the name 'Ada'"):
        edit(gallery, lambda g: g.name(2, typed))
    with pytest.raises(SettingsError, match="cannot be a name: it is empty"):
        edit(gallery, lambda g: g.name(2, "\u200b\u2060"))


def test_joiners_inside_a_name_are_kept(gallery: Gallery) -> None:
    two_people(gallery)
    name = "\u0645\u06cc\u200c\u062e\u0648"  # a Persian word with a zero-width non-joiner
    edit(gallery, lambda g: g.name(1, name))
    assert reads(gallery).person(1).name == name


def test_enrolled_names_that_look_the_same_are_one_person(
    gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(1, "Ada Lovelace"))
    with gallery.write() as writer:
        numbers = writer.people.enroll({"Ada\u200b Lovelace": [4], "Bo": [5], "Bo\u2060o": [6]})
    assert list(numbers) == ["Ada Lovelace", "Bo", "Bo\u2060o"]
    assert numbers["Ada Lovelace"] == 1
    assert 4 in reads(gallery).person(1).faces
    assert caplog.text == ""


def test_enrolled_names_that_differ_in_case_are_two_people_and_a_warning(
    gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(1, "Ada"))
    with gallery.write() as writer:
        numbers = writer.people.enroll({"ada": [6]})
    assert numbers["ada"] != 1
    assert "'ada' and 'Ada' are two people now" in caplog.text
    with pytest.raises(GalleryError, match=r"no person 'ADA' .* did you mean 'Ada'"):
        reads(gallery).person("ADA")


def test_mark_is_named_after_the_person_whose_name_looks_the_same(gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(1, "Ada Lovelace"))
    with gallery.write() as writer:
        mark = writer.people.mark(1, (20.0, 20.0, 30.0, 30.0))
        assert writer.people.name_mark(mark, "Ada\u00a0Lovelace") == 1


def test_enrolled_faces_join_the_name_the_group_or_a_new_person(gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(2, "Grace"))
    named = {"Ada": [1, 2], "Grace": [6], "Edsger": [5]}
    edit(gallery, lambda g: g.enroll(named))
    assert sorted(reads(gallery).people(), key=lambda person: person.id) == [
        Person(1, "Ada", (1, 2, 3)),  # the unnamed group that has both
        Person(2, "Grace", (4, 6)),
        Person(3, "Edsger", (5,)),  # taken from Grace
    ]
    confirmed = dict(zip(*reads(gallery).memberships()[::2], strict=True))
    assert confirmed == {1: 1, 2: 1, 3: 0, 4: 0, 5: 1, 6: 1}


@pytest.mark.parametrize(
    ("named", "left"),
    [({"Ada": [1], "Grace": [2]}, (3,)), ({"Ada": [1, 4, 6]}, (2, 3)), ({"Ada": [1, 4]}, (2, 3))],
    ids=["two names in a group", "a third of the faces", "half of the faces"],
)
def test_enrolled_name_leaves_a_group_that_is_not_clearly_its_own(
    gallery: Gallery, named: dict[str, list[int]], left: tuple[int, ...]
) -> None:
    edit(gallery, lambda g: g.assign({}, [[1, 2, 3]]))
    edit(gallery, lambda g: g.enroll(named))
    assert reads(gallery).person(1) == Person(1, None, left)
    assert {name: list(reads(gallery).person(name).faces) for name in named} == named


def test_enrolling_is_one_edit_and_undone_at_once(gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.rule_out(1, [2]))
    before = rows(gallery)
    edit(gallery, lambda g: g.enroll({"Ada": [1, 2, 3], "Grace": [6], "Edsger": [4]}))
    assert reads(gallery).person("Ada") == Person(1, "Ada", (1, 2, 3))
    assert reads(gallery).refusals() == set()
    with gallery.write() as writer:
        assert writer.people.undo() == "enrolment of 5 faces as 3 people"
    assert rows(gallery) == before


def test_enrolling_again_changes_nothing_and_is_no_edit(gallery: Gallery) -> None:
    with gallery.write() as writer:
        numbers = writer.people.enroll({"José": [1, 2]})
        now = rows(gallery)
        assert writer.people.enroll({unicodedata.normalize("NFD", "José"): [2]}) == {
            unicodedata.normalize("NFD", "José"): numbers["José"]
        }
        assert rows(gallery) == now
        assert writer.people.undo() == "enrolment of 2 faces as 'José'"
        with pytest.raises(GalleryError, match="no edit to undo"):
            writer.people.undo()


def test_enrolling_a_wrong_name_changes_nothing(gallery: Gallery) -> None:
    with gallery.write() as writer, pytest.raises(SettingsError, match="'7' cannot be a name"):
        writer.people.enroll({"Ada": [1], "7": [2]})
    assert reads(gallery).people() == []


def test_undo_passes_over_faces_that_have_gone(gallery: Gallery, tmp_path: Path) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.merge(1, [2]))
    change(gallery, lambda writer: writer.remove([tmp_path / "4.jpg"]))
    edit(gallery, lambda g: g.undo())
    assert reads(gallery).people() == [Person(1, None, (1, 2, 3)), Person(2, None, (5,))]
    assert problems(gallery) == []


def test_assigning_again_keeps_confirmed_faces_and_drops_empty_people(
    gallery: Gallery,
) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.confirm(2, [6]))
    edit(gallery, lambda g: g.assign({}, [], again=True))
    assert reads(gallery).people() == [Person(2, None, (6,))]


def test_gallery_of_format_2_is_read_and_migrated_by_a_writer(
    gallery: Gallery, tmp_path: Path
) -> None:
    gallery.close()
    file = tmp_path / "g" / "gallery.sqlite"
    with sqlite3.connect(file) as connection:
        for table in ("ignored", "memberships", "refusals", "sayings", "forgotten", "people"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'format'")
    connection.close()
    with Gallery.open(tmp_path / "g") as old:
        assert reads(old).people() == []
        assert not reads(old).is_forgotten(bytes(32))
        assert reads(old).counts().faces == 6
        two_people(old)
        assert len(reads(old).people()) == 2
        assert problems(old) == []
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone() == (
            "4",
        )
    connection.close()


def test_gallery_without_covers_and_times_is_read_and_migrated(
    gallery: Gallery, tmp_path: Path
) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(1, "Ada"))
    gallery.close()
    file = tmp_path / "g" / "gallery.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE apart")
        for table, column in (("people", "hidden"), ("people", "cover"), ("sayings", "made")):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        old = json.loads(connection.execute("SELECT before FROM sayings").fetchone()[0])
        old["people"] = [row[:3] for row in old["people"]]
        del old["apart"]
        connection.execute("UPDATE sayings SET before = ?", (json.dumps(old),))
    connection.close()
    with Gallery.open(tmp_path / "g") as opened:
        assert reads(opened).person("Ada").cover is None
        assert reads(opened).apart() == set()
        assert [(one.made, one.what) for one in reads(opened).edits(9)] == [
            (None, "name 'Ada' of person 1")
        ]
        edit(opened, lambda g: g.hide([1], True))
        assert reads(opened).person("Ada").hidden
        edit(opened, lambda g: g.undo())
        edit(opened, lambda g: g.undo())
        assert reads(opened).people()[0] == Person(1, None, (1, 2, 3))
        assert problems(opened) == []


# --- forgetting -----------------------------------------------------------------------------


def everything(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def test_forget_leaves_nothing_but_hashes(gallery: Gallery, tmp_path: Path) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(2, "Ada Nobody"))
    secrets = [face(4).embedding.tobytes(), face(5).embedding.tobytes(), b"Ada Nobody", b"4.jpg"]
    assert all(secret in everything(gallery.folder) for secret in secrets)
    with gallery.write() as writer:
        removed = writer.people.forget(2)
    assert removed == (1, 2)
    assert [person.id for person in reads(gallery).people()] == [1]
    assert [one.face.id for one in reads(gallery).stored_faces(range(1, 7))] == [1, 2, 3, 6]
    assert not any(secret in everything(gallery.folder) for secret in secrets)
    assert face(6).embedding.tobytes() in everything(gallery.folder)
    assert problems(gallery) == []


def test_forget_deletes_what_a_killed_process_left(gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(1, "Ada"))
    (secret,) = reads(gallery).embeddings([1])
    names = ("gallery.sqlite.new", "gallery.sqlite.new-wal", "gallery.sqlite.new-journal",
             "index.faiss.new", "index.faiss.upgraded.new", "writer.json.new")  # fmt: skip
    for name in names:
        (gallery.folder / name).write_bytes(secret.tobytes())
    (gallery.folder / "notes.new").write_text("not ours")
    edit(gallery, lambda g: g.forget(1))
    left = {file.name for file in gallery.folder.iterdir()}
    assert left & {*names, "notes.new"} == {"notes.new"}
    assert secret.tobytes() not in everything(gallery.folder)


def test_forget_drops_the_edits_of_merged_people(gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(2, "Ada Nobody"))
    edit(gallery, lambda g: g.name(2, None))
    edit(gallery, lambda g: g.merge(1, [2]))
    edit(gallery, lambda g: g.forget(1))
    assert b"Ada Nobody" not in everything(gallery.folder)
    with pytest.raises(GalleryError, match="no edit to undo"):
        edit(gallery, lambda g: g.undo())


def test_undo_never_crosses_a_forget(gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.name(1, "Eve"))
    edit(gallery, lambda g: g.forget(2))
    with pytest.raises(GalleryError, match="no edit to undo; edits before somebody was forgotten"):
        edit(gallery, lambda g: g.undo())
    assert reads(gallery).people() == [Person(1, "Eve", (1, 2, 3))]
    edit(gallery, lambda g: g.name(1, "Eva"))
    edit(gallery, lambda g: g.undo())
    assert reads(gallery).person(1).name == "Eve"


# --- ignoring -------------------------------------------------------------------------------


def test_ignored_face_leaves_and_undo_takes_it_back(gallery: Gallery) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.confirm(2, [6]))
    before, embeddings = rows(gallery), reads(gallery).embeddings([5, 6])
    state = state_of(gallery)
    edit(gallery, lambda g: g.ignore([4, 6]))
    assert reads(gallery).counts().faces == 4
    assert reads(gallery).stored_faces([4, 6]) == []
    assert reads(gallery).person(2).faces == (5,)
    assert reads(gallery).changes_since(state).removed.tolist() == [4, 6]
    assert reads(gallery).counts().no_face == 1  # the photo of face 4
    assert problems(gallery) == []
    said: list[str] = []
    edit(gallery, lambda g: said.append(g.undo()))
    assert said == ["ignoring of 2 faces"]
    assert rows(gallery) == before
    assert np.array_equal(reads(gallery).embeddings([5, 6]), embeddings)
    assert reads(gallery).counts()[2:4] == (6, 0)
    assert problems(gallery) == []


def test_ignored_face_never_comes_back(gallery: Gallery, tmp_path: Path) -> None:
    two = photo(tmp_path, "two.jpg", face(5), face(6, left=20.0))
    (secret,) = reads(gallery).embeddings([6])
    edit(gallery, lambda g: g.ignore([6]))
    change(gallery, lambda writer: writer.remove([tmp_path / "two.jpg"]))
    assert secret.tobytes() not in everything(gallery.folder)
    change(gallery, lambda writer: writer.record([two]))
    boxes = [one.face.box for one in reads(gallery).faces_of(tmp_path / "two.jpg")]
    assert boxes == [(0.0, 0.0, 10.0, 10.0)]
    said: list[str] = []
    edit(gallery, lambda g: said.append(g.undo()))
    assert said == ["ignoring of face 6; to have face 6 back, remove the photo and index it again"]
    change(gallery, lambda writer: writer.remove([tmp_path / "two.jpg"]))
    change(gallery, lambda writer: writer.record([two]))
    assert len(reads(gallery).faces_of(tmp_path / "two.jpg")) == 2
    assert problems(gallery) == []


def test_ignored_face_of_a_forgotten_person_leaves_no_trace(gallery: Gallery) -> None:
    two_people(gallery)
    (secret,) = reads(gallery).embeddings([4])
    edit(gallery, lambda g: g.ignore([4]))
    edit(gallery, lambda g: g.forget(2))
    assert secret.tobytes() not in everything(gallery.folder)


def test_ignoring_an_unknown_face_changes_nothing(gallery: Gallery) -> None:
    two_people(gallery)
    before = rows(gallery)
    with pytest.raises(GalleryError, match="face 99 is not in the gallery"):
        edit(gallery, lambda g: g.ignore([1, 99]))
    assert rows(gallery) == before
    assert reads(gallery).counts().faces == 6


def test_readmitted_photo_is_recorded_again(gallery: Gallery, tmp_path: Path) -> None:
    two_people(gallery)
    one, two = photo(tmp_path, "4.jpg", face(4)), photo(tmp_path, "two.jpg", face(5), face(6, 20.0))
    edit(gallery, lambda g: g.forget(2))  # faces 4 and 5
    change(gallery, lambda writer: writer.record([one, two]))
    assert reads(gallery).counts().faces == 4
    lifted: list[bool] = []
    for entry in (one, two, two):
        edit(gallery, lambda g, entry=entry: lifted.append(g.readmit(entry.sha256)))
    assert lifted == [True, True, False]
    change(gallery, lambda writer: writer.record([one]))
    added: list[int] = []
    change(gallery, lambda writer: added.append(writer.add_missing(two.sha256, two.faces)))
    assert added == [1]
    assert [len(reads(gallery).faces_of(tmp_path / name)) for name in ("4.jpg", "two.jpg")] == [
        1,
        2,
    ]
    assert problems(gallery) == []


def test_forgotten_photo_is_not_recorded_again(gallery: Gallery, tmp_path: Path) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.forget(1))
    again = photo(tmp_path, "1.jpg", face(1))
    assert reads(gallery).is_forgotten(again.sha256)
    before = reads(gallery).counts()
    with gallery.write() as writer:
        writer.record([again, photo(tmp_path, "new.jpg", face(9))])
    assert reads(gallery).counts().photos == before.photos + 1
    assert reads(gallery).stat_of(str(tmp_path), "1.jpg") is None


def test_forgotten_face_is_left_out_when_its_photo_is_recorded_again(
    gallery: Gallery, tmp_path: Path
) -> None:
    two_people(gallery)
    edit(gallery, lambda g: g.forget(2))
    entry = photo(tmp_path, "two.jpg", face(5, left=1.0), face(6, left=20.0))
    assert not reads(gallery).is_forgotten(entry.sha256)
    change(gallery, lambda writer: writer.remove([tmp_path / "two.jpg"]))
    change(gallery, lambda writer: writer.record([entry]))
    (stored,) = reads(gallery).faces_of(tmp_path / "two.jpg")
    np.testing.assert_array_equal(stored.face.embedding, face(6).embedding)
    alone = photo(tmp_path, "two.jpg", face(5))
    change(gallery, lambda writer: writer.remove([tmp_path / "two.jpg"]))
    change(gallery, lambda writer: writer.record([alone]))
    assert reads(gallery).faces_of(tmp_path / "two.jpg") == []
    assert reads(gallery).counts().no_face == 1
