"""A folder of photos for each named person."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import posix_only
from hypothesis import given
from hypothesis import strategies as st

from face2vec import Face2Vec
from face2vec.cli.main import main
from face2vec.exchange.folders import (
    CHANGED,
    LONGEST,
    TAKEN,
    PersonPhotos,
    PhotoOf,
    export,
    folder_names,
    safe_name,
)
from face2vec.files import composed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Ada Lovelace", "Ada Lovelace"),
        ("Zoë \u200cAda-ö 李 👩\u200d🔬", "Zoë \u200cAda-ö 李 👩\u200d🔬"),
        ("..", "__"),
        (".", "_"),
        ("../../etc/passwd", "__" + "_.._etc_passwd"),
        ("/etc", "_etc"),
        ("a\\b:c", "a_b_c"),
        ("C:", "C_"),
        (".hidden", "_hidden"),
        ("dots. . ", "dots"),
        ("<script>|?*\"", "_script_____"),
        ("a\0b\nc\x7f\x85", "a_b_c__"),
        ("\u202egnp.ada\u200f", "_gnp.ada_"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("com1", "_com1"),
        ("LPT¹", "_LPT¹"),
        ("console", "console"),
        ("   ", "_"),
        ("ö" * 3000, "ö" * (LONGEST // 2)),
        ("x" * 99 + "ö", "x" * 99),
    ],
)  # fmt: skip
def test_folder_has_a_safe_name(name: str, expected: str) -> None:
    assert safe_name(name) == expected


@given(st.text(max_size=300))
def test_any_name_is_one_folder(name: str) -> None:
    safe = safe_name(name)
    assert safe == safe_name(safe)
    assert Path("a", safe).parent == Path("a")
    assert Path("a", safe).name == safe
    assert safe not in (".", "..")
    assert 0 < len(safe.encode()) <= LONGEST
    assert not safe.startswith(".")
    assert not safe.endswith((".", " "))
    assert not set(safe) & set('<>:"/\\|?*')


def test_folders_of_people_are_different_and_stay() -> None:
    people = [
        (1, "Ada"),
        (2, "ada"),
        (3, "A/a"),
        (4, "A:a"),
        (5, "A_a"),
        (6, "A_a (7)"),
        (7, "A?a"),
    ]
    names = folder_names(people)
    assert names == {
        1: "Ada",
        2: "ada (2)",
        3: "A_a (3)",
        4: "A_a (4)",
        5: "A_a",
        6: "A_a (7)",
        7: "A_a (7)_",
    }
    assert len({name.casefold() for name in names.values()}) == len(people)
    for count in range(len(people)):
        assert folder_names(people[:count]) == {n: names[n] for n, _ in people[:count]}
    assert folder_names([(1, "Zoe\u0308")]) == {1: composed("Zoe\u0308")}


# --- with a gallery ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(
    faces_folder: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Photos of two people with names; both are in one, and two files have one name."""
    work = tmp_path_factory.mktemp("folders")
    photos = work / "photos"
    (photos / "more").mkdir(parents=True)
    shutil.copy2(faces_folder / "both.jpg", photos)
    shutil.copy2(faces_folder / "hopper.jpg", photos / "a.jpg")
    shutil.copy2(faces_folder / "hopper.jpg", photos / "copy of a.jpg")
    shutil.copy2(faces_folder / "more" / "hopper-brighter.webp", photos / "more" / "a.jpg")
    with Face2Vec(work / "gallery", model=tiny_model) as engine:
        engine.add(photos)
        with engine._session.gallery().read() as now:
            faces = {
                photo: sorted(one.face.id for one in now.faces_of(str(photos / photo)).records())
                for photo in ("both.jpg", "a.jpg", "more/a.jpg")
            }
            left, right = sorted(
                now.faces_of(str(photos / "both.jpg")).records(), key=lambda one: one.face.box
            )
        assert [len(some) for some in faces.values()] == [2, 1, 1]
        engine.name_face(left.face.id or 0, "../Eileen")
        for face in (right.face.id, *faces["a.jpg"], *faces["more/a.jpg"]):
            engine.name_face(face or 0, "Grace")
    return photos, work / "gallery"


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def is_second(name: str) -> bool:
    """Whether a name is that of a file whose own name was taken."""
    return name.startswith("Grace/a (") and name.endswith(").jpg") and len(name) == 22


def test_photos_of_each_person_are_copied_once(built: tuple[Path, Path], tmp_path: Path) -> None:
    photos, gallery = built
    with Face2Vec(gallery) as engine:
        numbers = {person.name: person.id for person in engine.people()}
        done = engine.export_people(tmp_path / "people")
        eileen = f"___Eileen ({numbers['../Eileen']})"
        assert done.folders == {
            "../Eileen": str(tmp_path / "people" / eileen),
            "Grace": str(tmp_path / "people" / "Grace"),
        }
        assert (done.written, done.there, done.refused) == (4, 0, ())
        found = tree(tmp_path / "people")
        second = [name for name in found if is_second(name)]
        assert len(second) == 1
        assert sorted(found) == sorted(
            ["Grace", "Grace/a.jpg", *second, "Grace/both.jpg", eileen, f"{eileen}/both.jpg"]
        )
        contents = {(tmp_path / "people" / name).read_bytes() for name in found if "/a" in name}
        assert contents == {(photos / name).read_bytes() for name in ("a.jpg", "more/a.jpg")}
        both = tmp_path / "people" / "Grace" / "both.jpg"
        assert both.stat().st_mtime_ns == (photos / "both.jpg").stat().st_mtime_ns
        assert not both.is_symlink()
        again = engine.export_people(tmp_path / "people")
        assert (again.written, again.there, again.refused) == (0, 4, ())
        assert tree(tmp_path / "people") == found
        links = engine.export_people(tmp_path / "people", link=True)
        assert (links.written, links.there) == (0, 4)


@posix_only
def test_photos_are_linked_relatively(built: tuple[Path, Path], tmp_path: Path) -> None:
    photos, gallery = built
    done = CliRunner().invoke(
        main, ["export", str(gallery), "--people", str(tmp_path / "p"), "--link", "--json"]
    )
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert (said["written"], said["there"], said["refused"]) == (4, 0, [])
    assert "2 people: 4 photos linked, 0 there already" in done.stderr
    both = tmp_path / "p" / "Grace" / "both.jpg"
    assert not both.readlink().is_absolute()
    assert both.resolve() == (photos / "both.jpg").resolve()
    with Face2Vec(gallery) as engine:
        assert engine.export_people(tmp_path / "p", link=True).there == 4
        assert engine.export_people(tmp_path / "p").there == 4


@posix_only
def test_links_are_right_where_the_folder_is_a_link(
    built: tuple[Path, Path], tmp_path: Path
) -> None:
    photos, gallery = built
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "short").symlink_to(tmp_path / "deep" / "deeper")
    with Face2Vec(gallery) as engine:
        engine.export_people(tmp_path / "short", link=True)
    found = tmp_path / "deep" / "deeper" / "Grace" / "both.jpg"
    assert found.resolve() == (photos / "both.jpg").resolve()


def one_photo(folder: Path, name: str = "a.jpg") -> PhotoOf:
    path = folder / name
    path.write_bytes(b"the bytes of a photo")
    status = path.stat()
    sha256 = hashlib.sha256(path.read_bytes()).digest()
    return PhotoOf(str(path), (status.st_size, status.st_mtime_ns), sha256)


@posix_only
@pytest.mark.parametrize("link", [False, True])
def test_nothing_is_written_through_a_link_out_of_the_folder(tmp_path: Path, link: bool) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim.jpg").write_bytes(b"keep")
    photo = one_photo(tmp_path)
    to = tmp_path / "to"
    to.mkdir()
    (to / "Ada").symlink_to(outside)
    (to / "Bob").mkdir()
    (to / "Bob" / "a.jpg").symlink_to(outside / "victim.jpg")
    people = [PersonPhotos("Ada", "Ada", (photo,)), PersonPhotos("Bob", "Bob", (photo,))]
    done = export(people, to, link=link)
    assert done.refused == ((photo.path, f"{to / 'Ada'} is a link, not a folder"),)
    assert done.written == 1
    assert tree(outside) == ["victim.jpg"]
    assert (outside / "victim.jpg").read_bytes() == b"keep"
    second = f"a ({photo.sha256.hex()[:8]}).jpg"
    assert tree(to / "Bob") == sorted([second, "a.jpg"])
    assert (to / "Bob" / second).read_bytes() == b"the bytes of a photo"


def test_files_that_are_there_are_kept(tmp_path: Path) -> None:
    photo = one_photo(tmp_path)
    folder = tmp_path / "to" / "Ada"
    folder.mkdir(parents=True)
    names = ("a.jpg", f"a ({photo.sha256.hex()[:8]}).jpg")
    for name in names:
        (folder / name).write_bytes(b"own work")
    done = export([PersonPhotos("Ada", "Ada", (photo,))], tmp_path / "to", link=False)
    assert done.refused == ((photo.path, TAKEN),)
    assert [(folder / name).read_bytes() for name in names] == [b"own work"] * 2
    assert tree(folder) == sorted(names)


def test_photo_that_changed_or_is_gone_is_refused_alone(tmp_path: Path) -> None:
    same, changed, swapped, gone = (one_photo(tmp_path, f"{n}.jpg") for n in range(4))
    Path(changed.path).write_bytes(b"longer than it was before")
    Path(swapped.path).write_bytes(b"other bytes, as long")
    os.utime(swapped.path, ns=(swapped.stat[1], swapped.stat[1]))
    Path(gone.path).unlink()
    people = [PersonPhotos("Ada", "Ada", (same, changed, swapped, gone))]
    done = export(people, tmp_path / "to", link=False)
    assert done.written == 1
    assert done.refused == (
        (changed.path, CHANGED),
        (swapped.path, CHANGED),
        (gone.path, "cannot be copied: no such file or directory"),
    )
    assert tree(tmp_path / "to") == ["Ada", "Ada/0.jpg"]


def test_long_names_of_files_fit(tmp_path: Path) -> None:
    name = "ö" * 100 + ".jpg"
    first, second = one_photo(tmp_path, name), one_photo(tmp_path, "b.jpg")
    (tmp_path / "more").mkdir()
    Path(second.path).rename(tmp_path / "more" / name)
    other = tmp_path / "more" / name
    other.write_bytes(b"other bytes")
    status = other.stat()
    sha256 = hashlib.sha256(b"other bytes").digest()
    second = PhotoOf(str(other), (status.st_size, status.st_mtime_ns), sha256)
    people = [PersonPhotos("Ada", "Ada", (first, second))]
    assert export(people, tmp_path / "to", link=False).written == 2
    assert export(people, tmp_path / "to", link=False).there == 2


def test_folder_that_cannot_be_made_is_an_error(built: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = CliRunner().invoke(
        main, ["export", str(built[1]), "--people", str(tmp_path / "file" / "x")]
    )
    assert done.exit_code == 3
    assert "cannot make the folder" in done.stderr
