"""Names from and to XMP: sidecars, packets in photos, and what exiftool reads and writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from click.testing import CliRunner, Result
from helpers import needs_program, overlap, posix_only
from PIL import Image, ImageOps

from face2vec import Face2Vec
from face2vec.cli.main import main
from face2vec.errors import MissingExtraError
from face2vec.exchange import sidecars, xmp_tree
from face2vec.exchange.regions import EMPTY, Region, merge, regions_of
from face2vec.exchange.xmp_tree import PacketError
from face2vec.gallery.rows import Entry

HOSTILE = (
    "\u202egnp.ecarG\u202c",
    "<script>alert('1')</script>",
    "G" * 4096,
    "../../etc/passwd",
    "a & b; --> ]]> <?x?>",
    "line\r\nline\tand \x85 more",
    "\u200fעדה\u200f",
)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def exiftool(*words: str | Path) -> str:
    program = needs_program("exiftool", "libimage-exiftool-perl")
    command = [program, "-charset", "filename=utf8", *map(str, words)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(
    faces_folder: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Photos, and a gallery of them in which nobody has a name."""
    work = tmp_path_factory.mktemp("xmp")
    photos = work / "photos"
    (photos / "more").mkdir(parents=True)
    shutil.copy(faces_folder / "both.jpg", photos)
    shutil.copy(faces_folder / "hopper.jpg", photos / "more")
    with Face2Vec(work / "gallery", model=tiny_model) as engine:
        engine.add(photos)
    return photos, work / "gallery"


@pytest.fixture
def work(made: tuple[Path, Path], tmp_path: Path) -> Iterator[Face2Vec]:
    """The gallery, whose photos are below the working folder."""
    shutil.copytree(made[0], tmp_path / "photos", copy_function=shutil.copy2)
    with Face2Vec(made[1]) as engine:
        engine.export(tmp_path / "faces.jsonl")
    text = (tmp_path / "faces.jsonl").read_text("utf-8")
    text = text.replace(str(made[0]), str(tmp_path / "photos"))
    (tmp_path / "faces.jsonl").write_text(text, "utf-8")
    with Face2Vec(tmp_path / "gallery") as engine:
        engine.import_faces(tmp_path / "faces.jsonl", root=tmp_path / "photos")
        yield engine


def faces_in(engine: Face2Vec, photo: Path) -> list[Any]:
    """The faces of a photo from left to right."""
    with engine._session.gallery().read() as now:
        return sorted((one.face for one in now.faces_of(str(photo)).records()), key=lambda f: f.box)


def names_in(engine: Face2Vec, photo: Path) -> list[str | None]:
    names = {face: one.name for one in engine.people() for face in one.faces}
    return [names.get(face.id) for face in faces_in(engine, photo)]


def sidecar_with(regions: list[Region], size: tuple[int, int], orientation: int = 1) -> bytes:
    return merge(EMPTY, regions, size, orientation).packet


def region_of(name: str, face: Any, size: tuple[int, int]) -> Region:
    left, top, right, bottom = face.box
    return Region(name, (left / size[0], top / size[1], right / size[0], bottom / size[1]))


BOTH, HOPPER = (1024, 600), (512, 600)


def test_exported_names_are_imported_again(work: Face2Vec, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    before = {path: path.read_bytes() for path in photos.rglob("*.jpg")}
    eileen, grace = faces_in(work, photos / "both.jpg")
    (other,) = faces_in(work, photos / "more" / "hopper.jpg")
    work.name_face(eileen.id, "Eileen")
    work.name_face(grace.id, "Grace")
    work.name_face(other.id, "Grace")
    done = work.export_xmp()
    assert json.loads(json.dumps(done.to_dict())) == {
        "written": [str(photos / "both.jpg.xmp"), str(photos / "more" / "hopper.jpg.xmp")],
        "unchanged": 0,
        "faces": 3,
        "refused": [],
    }
    assert work.export_xmp() == sidecars.XmpExported((), 2, 3)
    assert {path: path.read_bytes() for path in photos.rglob("*.jpg")} == before
    for _ in range(3):
        work.undo()
    assert names_in(work, photos / "both.jpg") == [None, None]
    found = work.import_xmp(photos)
    assert found == sidecars.XmpImported(3, found.people)
    assert sorted(found.people) == ["Eileen", "Grace"]
    assert found.is_complete
    assert names_in(work, photos / "both.jpg") == ["Eileen", "Grace"]
    assert names_in(work, photos / "more" / "hopper.jpg") == ["Grace"]
    assert work.undo() == "enrolment of 3 faces as 2 people"
    assert work.people() == []


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_survives_a_round_trip(work: Face2Vec, tmp_path: Path, name: str) -> None:
    photo = tmp_path / "photos" / "more" / "hopper.jpg"
    work.name_face(faces_in(work, photo)[0].id, name)
    assert work.export_xmp().refused == ()
    assert sorted(path.name for path in tmp_path.rglob("*.xmp")) == ["hopper.jpg.xmp"]
    work.undo()
    assert work.import_xmp(photo).people == (name,)
    assert names_in(work, photo) == [name]


@pytest.mark.parametrize("name", ["\x07bell", "nul\0", "\ufffe"])
def test_name_that_xml_cannot_hold_is_refused_alone(
    work: Face2Vec, tmp_path: Path, name: str
) -> None:
    both = tmp_path / "photos" / "both.jpg"
    eileen, grace = faces_in(work, both)
    work.name_face(eileen.id, name)
    work.name_face(grace.id, "Grace")
    done = work.export_xmp()
    assert done.refused == ((str(both), f"XML cannot hold the name {name!r}; rename the person"),)
    assert done.written == (f"{both}.xmp",)
    (one,) = regions_of(Path(f"{both}.xmp").read_bytes()).regions
    assert one.name == "Grace"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("12", "cannot be a name"), ("x" * 70_000, "a name of 70,000 characters; at most 65,536")],
)
def test_region_with_a_name_that_nobody_can_have_is_refused(
    work: Face2Vec, tmp_path: Path, name: str, reason: str
) -> None:
    both = tmp_path / "photos" / "both.jpg"
    eileen, grace = faces_in(work, both)
    regions = [region_of(name, eileen, BOTH), region_of("Grace", grace, BOTH)]
    Path(f"{both}.xmp").write_bytes(sidecar_with(regions, BOTH))
    done = work.import_xmp(both)
    assert (done.named, done.people, len(done.refused)) == (1, ("Grace",), 1)
    assert reason in done.refused[0][1]
    assert names_in(work, both) == [None, "Grace"]


def test_import_says_what_it_could_not_name(work: Face2Vec, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    both, hopper = photos / "both.jpg", photos / "more" / "hopper.jpg"
    eileen, _ = faces_in(work, both)
    work.name_face(eileen.id, "Sally")
    regions = [
        region_of("Eileen", eileen, BOTH),
        Region("Nobody", (0.9, 0.9, 1.0, 1.0)),
        Region("", (0.1, 0.9, 0.2, 1.0)),
    ]
    Path(f"{both}.xmp").write_bytes(sidecar_with(regions, BOTH))
    shutil.copy(hopper, photos / "new.jpg")
    with (photos / "new.jpg").open("ab") as file:
        file.write(b"other bytes")
    Path(f"{photos / 'new.jpg'}.xmp").write_bytes(
        sidecar_with([Region("Grace", (0.2, 0.2, 0.5, 0.5))], HOPPER)
    )
    Path(f"{hopper}.xmp").write_bytes(b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>")
    done = run("import", tmp_path / "gallery", photos, "--xmp", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {
        "named": 1,
        "people": ["Eileen"],
        "renamed": 1,
        "without_face": [{"photo": str(both), "name": "Nobody"}],
        "unnamed": 1,
        "unknown": [str(photos / "new.jpg")],
        "refused": [
            {
                "path": f"{hopper}.xmp",
                "reason": "it declares a document type or entities; XMP never does",
            }
        ],
    }
    assert done.stderr.splitlines()[:4] == [
        "1 region named, 1 person; 1 face had another name",
        "1 region without a face in the gallery",
        "1 photo with names not in the gallery",
        "1 region without a name",
    ]
    assert "XMP was refused: 1 file" in done.stderr


def test_huge_sidecar_is_refused(
    work: Face2Vec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = tmp_path / "photos" / "both.jpg"
    for module in (sidecars, xmp_tree):
        monkeypatch.setattr(module, "MAX_PACKET", 1000)
    Path(f"{both}.xmp").write_bytes(b" " * 100_000)
    reason = "it has 1,001 bytes; at most 1,000 are read"
    assert work.import_xmp(both).refused == ((f"{both}.xmp", reason),)
    work.name_face(faces_in(work, both)[0].id, "Eileen")
    assert work.export_xmp().refused == ((str(both), reason),)
    assert Path(f"{both}.xmp").read_bytes() == b" " * 100_000


def test_sidecar_of_the_full_name_comes_first(work: Face2Vec, tmp_path: Path) -> None:
    hopper = tmp_path / "photos" / "more" / "hopper.jpg"
    (face,) = faces_in(work, hopper)

    def put(path: Path, name: str) -> None:
        path.write_bytes(sidecar_with([region_of(name, face, HOPPER)], HOPPER))

    put(hopper.with_suffix(".XMP"), "by stem")
    assert work.import_xmp(hopper).people == ("by stem",)
    put(Path(f"{hopper}.xmp"), "by name")
    assert work.import_xmp(hopper).people == ("by name",)
    Path(f"{hopper}.xmp").write_bytes(EMPTY)  # has no regions
    assert work.import_xmp(hopper).people == ("by stem",)


def test_copies_with_different_names_are_refused(work: Face2Vec, tmp_path: Path) -> None:
    hopper = tmp_path / "photos" / "more" / "hopper.jpg"
    copy = tmp_path / "photos" / "zz.jpg"
    shutil.copy2(hopper, copy)
    (face,) = faces_in(work, hopper)
    with work._session.write() as writer:
        recorded = writer.recorded(str(tmp_path / "photos"), "more/hopper.jpg")
        assert recorded is not None
        times = copy.stat().st_size, copy.stat().st_mtime_ns
        writer.record([Entry.link(str(copy.parent), copy.name, *times, recorded.sha256)])
    for path, name in ((hopper, "Grace"), (copy, "Ada")):
        Path(f"{path}.xmp").write_bytes(sidecar_with([region_of(name, face, HOPPER)], HOPPER))
    done = work.import_xmp(tmp_path / "photos")
    assert done.refused == ((str(copy), "copies of it name one face 'Ada' and 'Grace'"),)
    assert done.named == 0
    Path(f"{copy}.xmp").write_bytes(sidecar_with([region_of("Grace", face, HOPPER)], HOPPER))
    assert work.import_xmp(tmp_path / "photos").named == 2
    assert work.export_xmp() == sidecars.XmpExported((), 2, 2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("frame", ["stored", "upright"])
def test_regions_of_turned_photos_find_their_faces(
    hopper: Image.Image,
    astronaut: Image.Image,
    tiny_model: Path,
    tmp_path: Path,
    orientation: int,
    frame: str,
) -> None:
    """Two faces and a photo that is not square, so that only one frame fits both."""
    up = Image.new("RGB", BOTH, "gray")
    up.paste(astronaut, (0, 0))
    up.paste(hopper, (512, 0))
    stored = up if orientation == 1 else up.transpose(UNTURNED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = tmp_path / "a.jpg"
    stored.save(photo, quality=95, exif=exif)
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(photo)
        faces = faces_in(engine, photo)
        assert len(faces) == 2
        for face, name in zip(faces, ("Eileen", "Grace"), strict=True):
            engine.name_face(face.id, name)
        if frame == "stored":
            assert engine.export_xmp().written == (f"{photo}.xmp",)
            found = regions_of(Path(f"{photo}.xmp").read_bytes())
            assert found.applied == stored.size
            for one, face in zip(sorted(found.regions), faces, strict=True):
                assert (
                    overlap(in_pixels(one.box, stored.size), turned_box(face.box, orientation))
                    > 0.9
                )
        else:
            regions = [
                region_of(n, f, BOTH) for n, f in zip(("Eileen", "Grace"), faces, strict=True)
            ]
            Path(f"{photo}.xmp").write_bytes(sidecar_with(regions, BOTH))
        engine.undo()
        engine.undo()
        done = engine.import_xmp(photo)
        assert (done.named, done.without_face) == (2, ())
        assert names_in(engine, photo) == ["Eileen", "Grace"]


UNTURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def in_pixels(box: tuple[float, ...], size: tuple[int, int]) -> tuple[float, ...]:
    return box[0] * size[0], box[1] * size[1], box[2] * size[0], box[3] * size[1]


def turned_box(box: tuple[float, ...], orientation: int) -> tuple[int, ...]:
    """A box of the upright photo in the stored image, by turning a drawing of it."""
    drawn = Image.new("L", BOTH)
    drawn.paste(255, tuple(round(v) for v in box))
    found = (drawn if orientation == 1 else drawn.transpose(UNTURNED[orientation])).getbbox()
    assert found is not None
    return found


# --- sidecars of other programs ---------------------------------------------------------------


def test_sidecar_of_the_stem_is_extended_if_it_is_of_this_photo(
    work: Face2Vec, tmp_path: Path
) -> None:
    hopper = tmp_path / "photos" / "more" / "hopper.jpg"
    work.name_face(faces_in(work, hopper)[0].id, "Grace")
    by_stem = hopper.with_suffix(".xmp")
    by_stem.write_bytes(EMPTY)
    by_stem.chmod(0o600)
    assert work.export_xmp().written == (str(by_stem),)
    if os.name == "posix":
        assert by_stem.stat().st_mode & 0o777 == 0o600
    by_stem.write_bytes(EMPTY)
    hopper.with_suffix(".CR2").write_bytes(b"a raw file")
    assert work.export_xmp().written == (f"{hopper}.xmp",)
    assert by_stem.read_bytes() == EMPTY


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_sidecar_keeps_its_encoding(work: Face2Vec, tmp_path: Path, encoding: str) -> None:
    hopper = tmp_path / "photos" / "more" / "hopper.jpg"
    sidecar = Path(f"{hopper}.xmp")
    text = EMPTY.decode().replace("\ufeff", "")
    sidecar.write_bytes(text.encode(encoding))
    work.name_face(faces_in(work, hopper)[0].id, "Grace ©")
    assert work.export_xmp().written == (str(sidecar),)
    new = sidecar.read_bytes().decode(encoding)
    assert ">Grace ©<" in new
    assert new.startswith(text[: text.index("</rdf:RDF>")])


@posix_only
def test_sidecar_that_is_a_link_or_broken_is_left_alone(work: Face2Vec, tmp_path: Path) -> None:
    hopper = tmp_path / "photos" / "more" / "hopper.jpg"
    sidecar = Path(f"{hopper}.xmp")
    work.name_face(faces_in(work, hopper)[0].id, "Grace")
    (tmp_path / "else.xmp").write_bytes(EMPTY)
    sidecar.symlink_to(tmp_path / "else.xmp")
    reason = f"{sidecar} is a link, not a regular file"
    assert work.export_xmp().refused == ((str(hopper), reason),)
    assert (tmp_path / "else.xmp").read_bytes() == EMPTY
    assert sidecar.is_symlink()
    sidecar.unlink()
    sidecar.write_bytes(b"<x:xmpmeta")
    done = run("export", tmp_path / "gallery", "--xmp")
    assert done.exit_code == 1
    assert "0 named faces: 0 files written, 0 unchanged" in done.stderr
    assert "not written: 1 file" in done.stderr
    assert "it is not well-formed XML" in done.stderr
    assert sidecar.read_bytes() == b"<x:xmpmeta"
    left = sorted(path.name for path in sidecar.parent.iterdir())
    assert left == ["hopper.jpg", "hopper.jpg.xmp"]


def test_photo_that_changed_or_is_gone_gets_no_sidecar(work: Face2Vec, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for face in (
        faces_in(work, photos / "both.jpg")[0],
        *faces_in(work, photos / "more/hopper.jpg"),
    ):
        work.name_face(face.id, "Somebody")
    with (photos / "both.jpg").open("ab") as file:
        file.write(b"more")
    (photos / "more" / "hopper.jpg").unlink()
    done = work.export_xmp()
    assert done.refused == (
        (str(photos / "both.jpg"), sidecars.CHANGED),
        (str(photos / "more" / "hopper.jpg"), "missing"),
    )
    assert list(photos.rglob("*.xmp")) == []


@posix_only
def test_sidecars_go_to_another_folder_and_never_out_of_it(work: Face2Vec, tmp_path: Path) -> None:
    photos, to = tmp_path / "photos", tmp_path / "to"
    hopper = photos / "more" / "hopper.jpg"
    work.name_face(faces_in(work, hopper)[0].id, "Grace")
    done = run("export", tmp_path / "gallery", "--xmp", "--to", to, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["written"] == [str(to / "more" / "hopper.jpg.xmp")]
    assert list(photos.rglob("*.xmp")) == []
    shutil.rmtree(to)
    to.mkdir()
    (to / "more").symlink_to(tmp_path)
    assert work.export_xmp(to).refused == (
        (str(hopper), f"{to / 'more'} is a link that leads out of {to}"),
    )
    stat = hopper.stat()
    for place in ("../hopper.jpg", "/etc/hopper.jpg", "a/../../b.jpg"):
        photo = sidecars.NamedPhoto(
            str(hopper), place, HOPPER, (stat.st_size, stat.st_mtime_ns), b"", ()
        )
        with pytest.raises(PacketError, match="leads out of its folder"):
            sidecars._target(photo, to)


@pytest.mark.parametrize(
    "words",
    [
        ["export", "g"],
        ["export", "g", "faces.csv", "--xmp"],
        ["export", "g", "faces.csv", "--to", "x"],
        ["export", "g", "faces.csv", "--embed"],
        ["export", "g", "--xmp", "--people", "x"],
        ["export", "g", "--xmp", "--link"],
        ["import", "g", "photos", "--xmp", "--model", "mini"],
        ["import", "g", "photos", "--xmp", "--root", "x"],
    ],
)
def test_options_that_do_not_fit_are_refused(words: list[str]) -> None:
    assert run(*words).exit_code == 2


def test_missing_defusedxml_names_the_extra(
    work: Face2Vec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = tmp_path / "photos" / "both.jpg"
    Path(f"{both}.xmp").write_bytes(EMPTY)
    monkeypatch.setitem(sys.modules, "defusedxml.common", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'face2vec\[xmp\]'"):
        work.import_xmp(both)


# --- exiftool as the other program ------------------------------------------------------------


def struct_of(file: Path) -> dict[str, Any]:
    (found,) = json.loads(exiftool("-json", "-struct", "-XMP:all", file))
    found.pop("SourceFile")
    return found


def test_exiftool_reads_what_is_exported(work: Face2Vec, tmp_path: Path) -> None:
    both = tmp_path / "photos" / "both.jpg"
    faces = faces_in(work, both)
    for face, name in zip(faces, HOSTILE[:2], strict=True):
        work.name_face(face.id, name)
    work.export_xmp()
    found = struct_of(Path(f"{both}.xmp"))["RegionInfo"]
    assert found["AppliedToDimensions"] == {"W": 1024, "H": 600, "Unit": "pixel"}
    listed = sorted(found["RegionList"], key=lambda region: region["Area"]["X"])
    for face, name, region in zip(faces, HOSTILE[:2], listed, strict=True):
        assert (region["Name"], region["Type"]) == (name, "Face")
        left, top, right, bottom = face.box
        area = [region["Area"][key] for key in "XYWH"]
        assert area == pytest.approx(
            [
                *((left + right) / 2048, (top + bottom) / 1200),
                *((right - left) / 1024, (bottom - top) / 600),
            ],
            abs=1e-5,
        )
        assert region["Area"]["Unit"] == "normalized"


def test_sidecar_of_exiftool_keeps_everything_else(work: Face2Vec, tmp_path: Path) -> None:
    both = tmp_path / "photos" / "both.jpg"
    eileen, grace = faces_in(work, both)
    sidecar = Path(f"{both}.xmp")
    pet = "{Area={X=0.9,Y=0.9,W=0.1,H=0.1,Unit=normalized},Name=Rex,Type=Pet}"
    regions = f"{{AppliedToDimensions={{W=1024,H=600,Unit=pixel}},RegionList=[{pet}]}}"
    exiftool(
        *("-XMP-xmp:Rating=4", "-XMP-dc:Subject=a", "-XMP-dc:Subject=b & c"),
        *("-XMP-dc:Description=line\nline <i>", "-XMP-crs:Exposure2012=+0.35"),
        *(f"-XMP-mwg-rs:RegionInfo={regions}", sidecar),
    )
    before = struct_of(sidecar)
    work.name_face(eileen.id, "Eileen")
    work.name_face(grace.id, "Grace")
    assert work.export_xmp().written == (str(sidecar),)
    after = struct_of(sidecar)
    added = after["RegionInfo"]["RegionList"]
    assert added[0]["Name"] == "Rex"
    assert sorted(one["Name"] for one in added[1:]) == ["Eileen", "Grace"]
    after["RegionInfo"]["RegionList"] = added[:1]
    assert after == before
    assert exiftool("-validate", "-warning", "-a", "-s3", sidecar) == "OK\n"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".heic", ".avif"])
@pytest.mark.parametrize("schema", ["mwg-rs", "MP"])
def test_regions_that_exiftool_puts_into_photos_are_imported(
    hopper: Image.Image, tiny_model: Path, tmp_path: Path, suffix: str, schema: str
) -> None:
    photo = tmp_path / f"a{suffix}"
    if suffix == ".heic":
        pillow_heif.from_pillow(hopper).save(photo, quality=90)
    else:
        hopper.save(photo, quality=95)
    box = (0.38, 0.1, 0.72, 0.55)  # a face, as a person would draw it
    if schema == "MP":
        rectangle = f"{box[0]}|, {box[1]}|, {box[2] - box[0]}|, {box[3] - box[1]}"
        region = f"{{Rectangle={rectangle},PersonDisplayName=Grace}}"
        word = f"-XMP-MP:RegionInfoMP={{Regions=[{region}]}}"
    else:
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        area = f"{{X={x},Y={y},W={box[2] - box[0]},H={box[3] - box[1]},Unit=normalized}}"
        word = f"-XMP-mwg-rs:RegionInfo={{RegionList=[{{Area={area},Name=Grace,Type=Face}}]}}"
    exiftool("-overwrite_original", word, photo)
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(photo)
        assert engine.import_xmp(tmp_path).to_dict()["named"] == 1
        assert names_in(engine, photo) == ["Grace"]


def test_sidecar_of_a_turned_photo_by_exiftool_is_imported(
    hopper: Image.Image, tiny_model: Path, tmp_path: Path
) -> None:
    """As Lightroom writes it: regions of the stored image, orientation 6."""
    photo = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    hopper.transpose(Image.Transpose.ROTATE_90).save(photo, quality=95, exif=exif)
    assert ImageOps.exif_transpose(Image.open(photo)).size == HOPPER
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(photo)
        (face,) = faces_in(engine, photo)
        left, top, right, bottom = face.box
        # A quarter turn to the left: what was right is now at the top.
        area = (
            f"{{X={(top + bottom) / 1200},Y={1 - (left + right) / 1024},"
            f"W={(bottom - top) / 600},H={(right - left) / 512},Unit=normalized}}"
        )
        regions = f"RegionList=[{{Area={area},Name=Grace,Type=Face}}]"
        word = f"-XMP-mwg-rs:RegionInfo={{AppliedToDimensions={{W=600,H=512}},{regions}}}"
        exiftool(word, "-XMP-tiff:Orientation#=6", tmp_path / "a.xmp")
        assert engine.import_xmp(photo).named == 1
