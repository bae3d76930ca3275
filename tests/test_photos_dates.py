"""When photos and videos were taken, as their files say it."""

from __future__ import annotations

import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image
from video_builder import grey, write_video

from face2vec import Face2Vec
from face2vec.cli.main import main
from face2vec.errors import SettingsError
from face2vec.gallery import listing
from face2vec.photos.dates import Period, period, photo_taken, taken
from face2vec.photos.video import video_taken


def exif(original: str | None, digitized: str | None = None) -> bytes:
    made = Image.Exif()
    made[0x0132] = "2001:01:01 00:00:00"  # when the file was changed
    directory = made.get_ifd(0x8769)
    for tag, value in ((0x9003, original), (0x9004, digitized)):
        if value is not None:
            directory[tag] = value
    return made.tobytes()


def picture(kind: str, original: str | None, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), "grey").save(stream, kind, exif=exif(original), **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_date_is_read_from_exif_of_every_format(kind: str) -> None:
    assert photo_taken(picture(kind, "2024:05:01 12:30:59")) == "2024-05-01T12:30:59"
    assert photo_taken(picture(kind, None)) == ""


def test_date_is_read_from_heic_and_jxl() -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    assert photo_taken(picture("HEIF", "2024:05:01 12:30:59")) == "2024-05-01T12:30:59"
    pytest.importorskip("pillow_jxl")
    assert photo_taken(picture("JXL", "2024:05:01 12:30:59")) == "2024-05-01T12:30:59"


def test_date_of_big_endian_exif_and_of_a_scan() -> None:
    block = b"MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x1a\0\0\0\0"
    block += b"\0\x01\x90\x04\0\x02\0\0\0\x14\0\0\0\x2c\0\0\0\0" + b"1999:12:31 23:59:58\0"
    stream = io.BytesIO()
    Image.new("RGB", (32, 32)).save(stream, "JPEG", exif=b"Exif\0\0" + block)
    assert photo_taken(stream.getvalue()) == "1999-12-31T23:59:58"


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "0000:00:00 00:00:00", "    :  :     :  :  ", "2024:13:01 00:00:00"),
        *("2024:02:30 00:00:00", "2024:05:01 25:00:00", "0001:01:01 00:00:00", "2024", "\0" * 20),
        *("1970:01:01 00:00:00", "1904:01:01 00:00:00", "9" * 300, "{2024:05:01 12:30:59}"),
    ],
)
def test_bad_dates_are_no_dates(text: str) -> None:
    assert taken(text) == ""
    assert photo_taken(picture("JPEG", text)) == ""


def test_damaged_exif_is_no_date_and_no_error() -> None:
    whole = picture("JPEG", "2024:05:01 12:30:59")
    found = set()
    for place in range(2, 160):
        for value in (0, 0x7F, 0xFF):
            changed = bytearray(whole)
            changed[place] = value
            found.add(photo_taken(bytes(changed)))
    assert "" in found
    assert "2024-05-01T12:30:59" in found
    for data in (
        b"",
        b"\xff\xd8\xff",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        whole[:40],
        b"\xff" * 99,
    ):
        assert photo_taken(data) == ""


def test_periods_are_years_months_and_days() -> None:
    assert period("2024", "2024-05") == Period("2024", "2024-05")
    assert period("2024-05", "2024") == Period("2024-05", "2024")
    for wrong in ("24", "2024-13", "2024-02-30", "2024-5", "May", "2024-05-01T00", "", "٢٠٢٤"):
        with pytest.raises(SettingsError, match="must be a year, month or day"):
            period(wrong, None)
    with pytest.raises(SettingsError, match="to must be a year"):
        period(None, "now")
    with pytest.raises(SettingsError, match="is empty"):
        period("2025", "2024-12")


def test_date_of_a_video_is_its_creation_time(tmp_path: Path) -> None:
    pytest.importorskip("av")
    import av

    plain = write_video(tmp_path / "plain.mp4", [(grey(90), 0.5)])
    assert video_taken(plain) == ""
    dated = tmp_path / "dated.mp4"
    with av.open(str(plain)) as source, av.open(str(dated), "w") as target:
        target.metadata["creation_time"] = "2023-07-08T09:10:11.000000Z"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert video_taken(dated) == "2023-07-08T09:10:11"
    assert video_taken(tmp_path / "missing.mp4") == ""
    with Face2Vec(tmp_path / "g", model="mini") as engine:
        engine.add(tmp_path)
        assert [Path(one.photo).name for one in engine.photos(since="2023")] == ["dated.mp4"]


@pytest.fixture
def dated(tmp_path: Path) -> Path:
    """A folder with photos of four dates, and one without a date."""
    folder = tmp_path / "photos"
    folder.mkdir()
    days = {"a": "2023:12:31 23:59:59", "b": "2024:05:01 08:00:00", "c": "2024:05:31 20:00:00"}
    for name, day in {**days, "d": "2025:01:01 00:00:00", "e": None}.items():
        (folder / f"{name}.jpg").write_bytes(picture("JPEG", day, comment=name.encode()))
    return folder


def listed(engine: Face2Vec, **period: str) -> str:
    return "".join(Path(one.photo).stem for one in engine.photos(**period))


def test_photos_are_listed_by_date(dated: Path, tmp_path: Path) -> None:
    with Face2Vec(tmp_path / "g", model="mini") as engine:
        engine.add(dated)
        assert listed(engine) == "abcde"
        assert listed(engine, since="2024") == "bcd"
        assert listed(engine, until="2024") == "abc"
        assert listed(engine, since="2024-05", until="2024-05") == "bc"
        assert listed(engine, since="2024-05-01", until="2024-05-30") == "b"
        assert listed(engine, until="2024-05-31") == "abc"
        with engine.snapshot() as now:
            assert listing.months(now) == [("2025-01", 1), ("2024-05", 2), ("2023-12", 1), ("", 1)]
            newest = listing.photo_page(now, listing.Wanted(), 0, 9, listing.BY_DATE)
            assert [one.taken[:10] for one in newest] == [
                *("2025-01-01", "2024-05-31", "2024-05-01", "2023-12-31", "")
            ]
            assert listing.count_undated(now) == 0
        with pytest.raises(SettingsError, match="since must be text, not 2024"):
            engine.photos(since=2024)  # type: ignore[arg-type]


def test_photos_have_their_dates_in_python_text_and_json(dated: Path, tmp_path: Path) -> None:
    with Face2Vec(tmp_path / "g", model="mini") as engine:
        engine.add(dated)
        taken = {Path(one.photo).stem: one.taken for one in engine.photos()}
    assert [taken[name][:10] for name in "abcde"] == [
        *("2023-12-31", "2024-05-01", "2024-05-31", "2025-01-01", "")
    ]
    done = CliRunner().invoke(main, ["photos", str(tmp_path / "g")])
    first, *_, last = done.stdout.splitlines()
    a, *_, e = sorted(dated.iterdir())
    assert first == f"no-face     {taken['a'][:16].replace('T', ' ')}  {a}"
    assert last == f"no-face                       {e}"
    done = CliRunner().invoke(main, ["photos", str(tmp_path / "g"), "--json"])
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["taken"] for one in told] == [taken[name] or None for name in "abcde"]


def test_photos_command_lists_by_date(dated: Path, tmp_path: Path) -> None:
    with Face2Vec(tmp_path / "g", model="mini") as engine:
        engine.add(dated)
    run = CliRunner()
    command = ["photos", str(tmp_path / "g"), "--from", "2024-05", "--to", "2024-05"]
    done = run.invoke(main, command)
    assert [line.split()[-1] for line in done.stdout.splitlines()] == [
        str(dated / "b.jpg"),
        str(dated / "c.jpg"),
    ]
    assert "2 photos" in done.stderr
    wrong = run.invoke(main, ["photos", str(tmp_path / "g"), "--from", "May"])
    assert "from must be a year, month or day" in wrong.stderr


def test_dates_of_an_older_gallery_are_read_on_request(dated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "g"
    with Face2Vec(folder, model="mini") as engine:
        engine.add(dated)
    with sqlite3.connect(folder / "gallery.sqlite") as connection:
        connection.execute("ALTER TABLE contents DROP COLUMN taken")
    connection.close()
    with Face2Vec(folder) as engine:
        assert listed(engine) == "abcde"
        assert listed(engine, since="2000") == ""
        with engine.snapshot() as now:
            assert listing.months(now) == [("", 5)]
            assert listing.count_undated(now) == 5
            wanted = listing.Wanted()
            assert len(listing.photo_page(now, wanted, 0, 9, listing.BY_DATE)) == 5
        assert engine.add(dated).unchanged == 5
        with engine.snapshot() as now:
            assert listing.count_undated(now) == 5
        engine.add(dated, again=["no-face", "indexed"])
        assert listed(engine, since="2024-05", until="2024-05") == "bc"
        with engine.snapshot() as now:
            assert listing.count_undated(now) == 0
        assert engine.check() == []


def test_copy_and_renamed_photo_keep_their_date(dated: Path, tmp_path: Path) -> None:
    with Face2Vec(tmp_path / "g", model="mini") as engine:
        engine.add(dated)
        (dated / "b.jpg").rename(dated / "x.jpg")
        engine.add(dated)
        engine.prune()
        assert listed(engine, since="2024-05", until="2024-05") == "cx"
