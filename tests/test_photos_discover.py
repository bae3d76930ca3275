"""`find_photos`: which files are found, in which order, each once."""

from __future__ import annotations

import inspect
import io
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import names_of_any_bytes, posix_only
from PIL import Image

from face2vec.errors import PhotoError, SettingsError
from face2vec.photos import discover, extras
from face2vec.photos.decode import open_photo
from face2vec.photos.discover import FoundPhoto, find_photos

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG")
    return stream.getvalue()


def tree(folder: Path, *names: str, content: bytes = b"\xff\xd8\xff\xe0 like a JPEG") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def found(*sources: object) -> list[str]:
    return [photo.path.as_posix() for photo in find_photos(sources)]


def test_find_photos_searches_a_folder_in_order_of_names(tmp_path):
    tree(tmp_path, "b.jpg", "a/2.png", "a/1.HEIC", "a/deep/x.webp", "c/3.tif", "a.gif", "Z.bmp")
    result = list(find_photos([tmp_path]))
    paths = ["Z.bmp", "a/1.HEIC", "a/2.png", "a/deep/x.webp", "a.gif", "b.jpg", "c/3.tif"]
    assert [photo.path.as_posix() for photo in result] == paths
    assert result == [FoundPhoto(str(tmp_path.resolve()), path) for path in paths]
    assert result[1].full == tmp_path.resolve() / "a" / "1.HEIC"
    assert found(str(tmp_path)) == paths


def test_find_photos_gives_an_absolute_root(tmp_path, monkeypatch):
    tree(tmp_path, "in/a.jpg")
    monkeypatch.chdir(tmp_path)
    assert list(find_photos(["in"])) == [FoundPhoto(str(tmp_path.resolve() / "in"), "a.jpg")]
    assert list(find_photos(["in/a.jpg"])) == [FoundPhoto(str(tmp_path.resolve() / "in"), "a.jpg")]
    assert list(find_photos("in")) == list(find_photos(["in"]))


def test_find_photos_accepts_by_suffix_or_first_bytes(tmp_path, monkeypatch):
    tree(tmp_path, "a.jpg", "b.txt", "c.mp4", "d.cr2", "e.dat", "f", "g.2019", "Thumbs.db")
    tree(tmp_path, "h.jpeg", "i.dat", "j", content=b"this is no photo")
    monkeypatch.setitem(sys.modules, "rawpy", None)
    monkeypatch.setitem(sys.modules, "av", None)
    opened = []
    real = discover.photo_format
    monkeypatch.setattr(discover, "photo_format", lambda head: opened.append(head) or real(head))
    assert found(tmp_path) == ["a.jpg", "e.dat", "f", "g.2019", "h.jpeg"]
    assert len(opened) == 5  # e, f, g, i, j


def test_find_photos_counts_what_no_installed_package_reads(tmp_path, monkeypatch):
    names = ("a.jpg", "b.mp4", "c.MOV", "d.cr2", "e.NEF", "f.jxl", "sub/g.dng", "h.txt", "i.mp3")
    tree(tmp_path, *names)
    tree(tmp_path, "codestream", content=b"\xff\x0a" + bytes(40))
    tree(tmp_path, "webm", content=b"\x1aE\xdf\xa3" + bytes(40))
    for package in ("rawpy", "pillow_jxl", "av"):
        monkeypatch.setitem(sys.modules, package, None)
    unread: Counter[str] = Counter()
    photos = [photo.name for photo in find_photos(tmp_path, unread=unread)]
    assert photos == ["a.jpg"]
    assert unread == {"RAW": 3, "JXL": 2, "VIDEO": 3}
    unread.clear()
    assert [p.name for p in find_photos(str(tmp_path / "*.*"), unread=unread)] == ["a.jpg"]
    assert unread == {"RAW": 2, "JXL": 1, "VIDEO": 2}
    monkeypatch.setattr(extras.Kind, "is_read", property(lambda kind: kind.package != "pillow_jxl"))
    unread.clear()
    photos = [photo.name for photo in find_photos(tmp_path, unread=unread)]
    assert photos == ["a.jpg", "b.mp4", "c.MOV", "d.cr2", "e.NEF", "sub/g.dng", "webm"]
    assert {kind: number for kind, number in unread.items() if number} == {"JXL": 2}


def test_find_photos_skips_hidden_names(tmp_path):
    tree(tmp_path, ".a.jpg", ".git/b.jpg", "c/.d/e.jpg", "c/._f.jpg", "c/g.jpg")
    assert found(tmp_path) == ["c/g.jpg"]
    assert found(tmp_path / ".git") == ["b.jpg"]


def test_find_photos_accepts_any_file_given_by_path(tmp_path):
    tree(tmp_path, "a.txt", ".b.jpg", content=b"text")
    (tmp_path / "empty").touch()
    assert found(tmp_path / "a.txt", tmp_path / ".b.jpg", tmp_path / "empty") == [
        "a.txt",
        ".b.jpg",
        "empty",
    ]


def test_find_photos_checks_all_sources_before_the_first_photo(tmp_path):
    tree(tmp_path, "a.jpg")
    for wrong in ("none", "none.jpg", "*.png", "none/**/*.jpg"):
        with pytest.raises(SettingsError) as caught:
            find_photos([tmp_path, f"{tmp_path}/{wrong}"])
        assert f"{tmp_path}/{wrong}" in str(caught.value)
    with pytest.raises(SettingsError, match=r"cannot read the list '@none\.txt': No such file"):
        find_photos([tmp_path, "@none.txt"])
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    with pytest.raises(SettingsError, match=r"gone\.jpg"):
        find_photos([tmp_path / "gone.jpg"])


def test_find_photos_accepts_paths_and_nested_lists(tmp_path):
    tree(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    a, b, c, d = (tmp_path / f"{name}.jpg" for name in "abcd")
    assert found(d, [a, (b,)], {str(c): 1}, iter([a])) == ["d.jpg", "a.jpg", "b.jpg", "c.jpg"]
    assert [photo.full for photo in find_photos(a)] == [a]
    assert found([]) == []


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (3, "3"),
        (PIXELS[0, 0], "an array uint8"),
        (Image.new("L", (1, 1)), "an object of type Image"),
        (b"GIF89a", "6 bytes"),
    ],
)
def test_find_photos_refuses_non_paths(source, kind):
    with pytest.raises(SettingsError, match=f"found by path .*, not by {kind}"):
        find_photos([source])


def test_find_photos_yields_each_real_file_once(tmp_path):
    tree(tmp_path, "all/2019/a.jpg", "all/b.jpg")
    sources = [tmp_path / "all" / "2019", tmp_path / "all", tmp_path / "all" / "b.jpg"]
    assert found(*sources) == ["a.jpg", "b.jpg"]
    assert found(*reversed(sources)) == ["b.jpg", "2019/a.jpg"]
    os.link(tmp_path / "all" / "b.jpg", tmp_path / "all" / "c.jpg")  # a hard link counts as a file
    assert found(tmp_path / "all") == ["2019/a.jpg", "b.jpg", "c.jpg"]


def test_find_photos_follows_links_without_loops(tmp_path):
    tree(tmp_path, "in/a/1.jpg", "out/b/2.jpg", "out/3.jpg")
    (tmp_path / "in" / "a" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "a" / "self").symlink_to("self")
    (tmp_path / "in" / "z").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "zz").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "b" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "out" / "b" / "round").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "4.jpg").symlink_to(tmp_path / "out" / "3.jpg")
    assert found(tmp_path / "in") == ["4.jpg", "a/1.jpg", "z/b/2.jpg"]


def test_find_photos_keeps_names_after_links_are_added(tmp_path):
    tree(tmp_path, "m/1.jpg", "n.jpg", ".store/abc", "blob.txt")
    (tmp_path / "a").symlink_to("m")
    (tmp_path / "a.jpg").symlink_to("n.jpg")
    assert found(tmp_path) == ["m/1.jpg", "n.jpg"]
    # Files that are not found under their own name are found through the link.
    (tmp_path / "o.jpg").symlink_to(".store/abc")
    (tmp_path / "p.jpg").symlink_to("blob.txt")
    (tmp_path / "q").symlink_to(".store")
    assert found(tmp_path) == ["m/1.jpg", "n.jpg", "o.jpg", "p.jpg"]


def test_find_photos_through_a_link_to_the_folder(tmp_path):
    tree(tmp_path, "real/a.jpg")
    (tmp_path / "link").symlink_to("real")
    assert list(find_photos([tmp_path / "link"])) == [
        FoundPhoto(str(tmp_path.resolve() / "real"), "a.jpg")
    ]


@posix_only
def test_find_photos_yields_unreadable_folders_and_broken_links(tmp_path, monkeypatch):
    tree(tmp_path, "a.jpg", "closed/b.jpg", "d.jpg")
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert found(tmp_path) == ["a.jpg", "broken.jpg", "closed", "d.jpg"]
    assert found(f"{tmp_path}/c*") == ["closed"]
    (tmp_path / "list.txt").write_text("closed\na.jpg\n")
    listed = [photo.full for photo in find_photos([f"@{tmp_path}/list.txt"])]
    assert listed == [tmp_path.resolve() / "closed", tmp_path.resolve() / "a.jpg"]
    with pytest.raises(
        SettingsError, match=r"cannot list the folder '.*closed': Permission denied"
    ):
        find_photos([tmp_path / "closed"])
    with pytest.raises(PhotoError, match="missing"):
        open_photo(tmp_path / "broken.jpg")


def test_find_photos_searches_trees_deeper_than_the_recursion_limit(tmp_path):
    depth = 120
    tree(tmp_path, "d/" * depth + "x.jpg")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 80)
    try:
        result = found(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert result == ["d/" * depth + "x.jpg"]


def test_find_photos_matches_glob_patterns(tmp_path, monkeypatch):
    tree(tmp_path, "a1.jpg", "a2.jpg", "b1.jpg", "a3.txt", "s/a4.jpg", "s/t/a5.jpg", ".h/a6.jpg")
    (tmp_path / "s" / "loop").symlink_to(tmp_path)
    assert found(f"{tmp_path}/a*.jpg") == ["a1.jpg", "a2.jpg"]
    assert found(f"{tmp_path}/a*") == ["a1.jpg", "a2.jpg"]
    assert found(f"{tmp_path}/[ab]1.jpg") == ["a1.jpg", "b1.jpg"]
    assert found(f"{tmp_path}/?2.jpg") == ["a2.jpg"]
    assert found(f"{tmp_path}/**/a*.jpg") == ["a1.jpg", "a2.jpg", "s/a4.jpg", "s/t/a5.jpg"]
    assert found(f"{tmp_path}/**/t/*.jpg") == ["s/t/a5.jpg"]
    assert found(f"{tmp_path}/*/a4.jpg") == ["s/a4.jpg"]
    assert found(f"{tmp_path}/.*/*.jpg") == [".h/a6.jpg"]
    assert found(f"{tmp_path}/**") == ["a1.jpg", "a2.jpg", "b1.jpg", "s/a4.jpg", "s/t/a5.jpg"]
    assert next(find_photos([f"{tmp_path}/s/*"])).root == tmp_path.resolve() / "s"
    monkeypatch.chdir(tmp_path)
    assert list(find_photos(["s/t/*.jpg"])) == [
        FoundPhoto(str(tmp_path.resolve() / "s" / "t"), "a5.jpg")
    ]
    assert found("b?.jpg") == ["b1.jpg"]
    (tmp_path / "s" / "loop").unlink()
    assert found("s/*") == ["a4.jpg", "t/a5.jpg"]


def test_find_photos_prefers_an_existing_name_to_a_pattern(tmp_path):
    tree(tmp_path, "trip [2019]/a.jpg", "trip 2/b.jpg", "what?.jpg", "whats.jpg")
    assert found(tmp_path / "trip [2019]") == ["a.jpg"]
    assert found(f"{tmp_path}/trip [2019]/*.jpg") == ["a.jpg"]
    assert found(tmp_path / "what?.jpg") == ["what?.jpg"]


def test_find_photos_reads_a_list_of_paths(tmp_path):
    tree(
        tmp_path, "l/in/a.jpg", "l/in/#b.jpg", "l/c.txt", "else/d.jpg", "l/e f /g.jpg", "l/w/h.jpg"
    )
    lines = [
        "# a comment",
        "",
        "in/a.jpg",
        "in/../in/a.jpg",
        "./in/#b.jpg\r",
        "   ",
        "c.txt",
        str(tmp_path / "else" / "d.jpg"),
        "e f /g.jpg",
        "not/there.jpg",
        "w",
    ]
    listed = tmp_path / "l" / "list.txt"
    listed.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    root = tmp_path.resolve() / "l"
    assert list(find_photos([f"@{listed}"])) == [
        FoundPhoto(str(root), "in/a.jpg"),
        FoundPhoto(str(root), "in/#b.jpg"),
        FoundPhoto(str(root), "c.txt"),
        FoundPhoto(str(root.parent / "else"), "d.jpg"),
        FoundPhoto(str(root), "e f /g.jpg"),
        FoundPhoto(str(root), "not/there.jpg"),
        FoundPhoto(str(root / "w"), "h.jpg"),
    ]


@pytest.mark.parametrize("binary", [True, False], ids=["a pipe", "a text stream"])
def test_find_photos_reads_a_list_on_standard_input(tmp_path, monkeypatch, binary):
    tree(tmp_path, "a.jpg", "été/b.jpg")
    monkeypatch.chdir(tmp_path)
    text = "été/b.jpg\na.jpg\n"
    stream = io.TextIOWrapper(io.BytesIO(text.encode())) if binary else io.StringIO(text)
    monkeypatch.setattr(sys, "stdin", stream)
    assert list(find_photos(["-"])) == [
        FoundPhoto(str(tmp_path.resolve()), "été/b.jpg"),
        FoundPhoto(str(tmp_path.resolve()), "a.jpg"),
    ]


NAMES = [
    "照片/家人.jpg",
    "صور/عائلة.jpg",
    "Фото/семья.jpg",
    "तस्वीर/परिवार.jpg",
    "📷/👨‍👩‍👧.jpg",
    "e\u0301te\u0301.jpg",
    "été.jpg",
    " with  spaces .jpg",
    "line\u2028separator.jpg",
    "quote'\"and\\.jpg",
    "-dash.jpg",
]


def test_find_and_open_photos_with_names_in_any_script(tmp_path):
    tree(tmp_path, *NAMES, content=png())
    assert sorted(found(tmp_path)) == sorted(NAMES)
    listed = tmp_path / "список.txt"
    listed.write_text("\n".join(NAMES), encoding="utf-8")
    result = list(find_photos([f"@{listed}"]))
    assert [photo.path.as_posix() for photo in result] == NAMES
    for photo in result:
        np.testing.assert_array_equal(open_photo(photo.full).image, PIXELS)
        assert open_photo(photo.full).name == str(photo.full)


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has file names that are not valid text"
)
@names_of_any_bytes
def test_find_and_open_photos_with_a_name_that_is_not_valid_text(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(path, "wb") as file:  # noqa: PTH123 - a path of bytes
        file.write(png())
    (listed := tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
    for source in (tmp_path, f"@{listed}"):
        (photo,) = find_photos([source])
        assert os.fsencode(photo.full) == os.path.realpath(path)
        np.testing.assert_array_equal(open_photo(photo.full).image, PIXELS)


# --- camera raw files beside their JPEG -----------------------------------------------------


def exposures(folder: Path) -> Path:
    """Two exposures with both files, one of each alone, and one whose JPEG is left out."""
    (folder / "inner").mkdir(parents=True)
    names = ["a.JPG", "a.DNG", "b.dng", "c.jpg", "inner/d.jpeg", "inner/d.cr2", "inner/a.nef"]
    for name in [*names, "draft-e.jpg", "draft-e.dng"]:
        (folder / name).touch()
    return folder


def test_one_exposure_is_found_once(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    folder = exposures(tmp_path / "photos")
    paired: Counter[str] = Counter()
    found = [one.name for one in find_photos(folder, paired=paired)]
    assert found == [
        "a.JPG", "b.dng", "c.jpg", "draft-e.jpg", "inner/a.nef", "inner/d.jpeg",
    ]  # fmt: skip
    assert paired == {"RAW": 3}
    none: Counter[str] = Counter()
    assert len(list(find_photos(folder, pairs="both", paired=none))) == 9
    assert not none
    kept = [one.name for one in find_photos(folder, exclude=["draft-*.jpg"])]
    assert "draft-e.dng" in kept
    assert "draft-e.jpg" not in kept
    named = [one.name for one in find_photos([folder / "a.JPG", folder / "a.DNG"])]
    assert named == ["a.JPG", "a.DNG"]
    with pytest.raises(SettingsError, match="pairs must be 'jpeg' or 'both'"):
        find_photos(folder, pairs="raw")
