"""Reading videos: which frames are taken, their times, and files that are broken or odd."""

from __future__ import annotations

import math
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers import needs
from PIL import Image
from video_builder import SIZE, drawn, grey, with_matrix, write_sound, write_video

from face2vec.errors import PhotoError
from face2vec.photos import video as video_module
from face2vec.photos.video import CUT_SECONDS, Video, is_video
from face2vec.types import clock

FAST = {"movflags": "faststart"}


@pytest.fixture(scope="module", autouse=True)
def _pyav() -> None:
    needs("video", "av")


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark for 2.5 s and bright for 2 s, with the index of the file at its start."""
    path = tmp_path_factory.mktemp("video") / "cut.mp4"
    return write_video(path, [(grey(40), 2.5), (grey(200), 2.0)], options=FAST)


def taken(path: Path) -> list[tuple[float, bool]]:
    return [(frame.time, frame.is_cut) for frame in Video(path)]


def reason_of(path: Path) -> str:
    with pytest.raises(PhotoError) as caught:
        list(Video(path))
    return caught.value.reason


def test_frames_are_one_a_second_and_the_first_after_a_cut(cut: Path) -> None:
    video = Video(cut)
    frames = list(video)
    assert [(frame.time, frame.is_cut) for frame in frames] == [
        *((0.0, False), (1.0, False), (2.0, False)),
        *((2.5, True), (3.5, False)),
    ]
    assert [round(float(frame.image.mean()), -1) for frame in frames] == [40, 40, 40, 200, 200]
    assert {(frame.image.shape, frame.image.dtype.name) for frame in frames} == {
        ((SIZE[1], SIZE[0], 3), "uint8")
    }
    assert video.damage == ""


def test_flicker_does_not_take_every_frame(tmp_path: Path) -> None:
    shots = [(grey(level), 0.1) for _ in range(10) for level in (0, 255)]
    times = [time for time, _ in taken(write_video(tmp_path / "a.mkv", shots, codec="mjpeg",
                                                  pixels="yuvj420p"))]  # fmt: skip
    assert np.diff(times).min() >= CUT_SECONDS
    assert len(times) <= 2 / CUT_SECONDS


def test_slow_change_is_no_cut(tmp_path: Path) -> None:
    shots = [(grey(level), 0.1) for level in range(0, 250, 10)]
    assert [is_cut for _, is_cut in taken(write_video(tmp_path / "a.mp4", shots))] == [False] * 3


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"),
    [
        ("mp4", "mpeg4", "yuv420p"),
        ("mkv", "ffv1", "yuv420p10le"),
        ("mkv", "ffv1", "gray"),
        ("mkv", "ffv1", "yuva420p"),
        ("mov", "prores_ks", "yuv422p10le"),
        ("avi", "mjpeg", "yuvj422p"),
        ("mov", "qtrle", "rgb24"),
        ("webm", "libvpx", "yuv420p"),
        ("ts", "mpeg2video", "yuv420p"),
        ("mpg", "mpeg1video", "yuv420p"),
        ("wmv", "wmv2", "yuv420p"),
        ("flv", "flv1", "yuv420p"),
    ],
)
def test_formats_and_pixels_are_read(tmp_path: Path, suffix: str, codec: str, pixels: str) -> None:
    path = tmp_path / f"a.{suffix}"
    rate = 10 if "mpeg1" not in codec and "mpeg2" not in codec else 25
    write_video(path, [(drawn(0), 1.2)], codec=codec, pixels=pixels, rate=rate)
    assert is_video(path)
    first, second = Video(path)
    assert first.time == 0
    assert second.time == pytest.approx(1, abs=0.05)
    shown = np.asarray(drawn(0) if pixels != "gray" else drawn(0).convert("L").convert("RGB"))
    assert np.abs(second.image.astype(int) - shown).mean() < 12


def test_frame_is_found_again_by_its_time(tmp_path: Path) -> None:
    shots = [(drawn(0, number), 0.7) for number in range(5)]
    path = write_video(tmp_path / "a.mp4", shots)
    frames = list(Video(path))
    again = list(Video(path, [frame.time for frame in frames[::2]]))
    assert [frame.time for frame in again] == [frame.time for frame in frames[::2]]
    for frame, other in zip(frames[::2], again, strict=True):
        assert np.array_equal(frame.image, other.image)
    for frame in frames:
        assert np.array_equal(Video(path).frame_at(frame.time).image, frame.image)


@pytest.mark.parametrize("time", [0.05, 99.0, 1e12])
def test_time_without_a_frame_is_an_error(cut: Path, time: float) -> None:
    with pytest.raises(PhotoError, match="it has no frame at"):
        Video(cut).frame_at(time)
    with pytest.raises(PhotoError, match="it has no frame at"):
        list(Video(cut, [0.0, time]))


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), None),
        ((0, 1, -1, 0), Image.Transpose.ROTATE_270),
        ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
        ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
        ((-1, 0, 0, 1), Image.Transpose.FLIP_LEFT_RIGHT),
        ((0, 1, 1, 0), Image.Transpose.TRANSPOSE),
    ],
)
def test_frames_are_turned_upright(
    tmp_path: Path, matrix: tuple[int, int, int, int], turn: Image.Transpose | None
) -> None:
    plain = write_video(tmp_path / "plain.mp4", [(drawn(0), 0.2)])
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(with_matrix(plain.read_bytes(), *matrix))
    (frame,), (as_stored,) = Video(turned), Video(plain)
    image = Image.fromarray(as_stored.image)
    expected = image if turn is None else image.transpose(turn)
    assert np.array_equal(frame.image, np.asarray(expected))


def test_frames_have_square_pixels(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", [(drawn(0), 0.2)], aspect=Fraction(3, 2))
    (frame,) = Video(path)
    assert frame.image.shape == (SIZE[1], SIZE[0] * 3 // 2, 3)


def test_times_are_those_of_the_frames_if_their_rate_varies(tmp_path: Path) -> None:
    times = [0, 0.1, 0.2, 5.0, 5.3, 6.5, 30.0]
    path = write_video(tmp_path / "a.mkv", [(drawn(0), 0.7)], times=times)
    assert [time for time, _ in taken(path)] == [0, 5, 6.5, 30]


def test_far_times_are_read_as_fast_as_near_ones(tmp_path: Path) -> None:
    times = [0, 1e6, 1e9]
    jpeg = {"codec": "mjpeg", "pixels": "yuvj420p"}
    path = write_video(tmp_path / "a.mkv", [(drawn(0), 0.3)], times=times, **jpeg)
    assert [time for time, _ in taken(path)] == times


def test_stated_duration_is_not_believed(cut: Path, tmp_path: Path) -> None:
    data = cut.read_bytes()
    for box, offset in ((b"mvhd", 16), (b"tkhd", 20), (b"mdhd", 16)):
        at = data.index(box) + 4 + offset
        data = data[:at] + b"\x7f\xff\xff\xff" + data[at + 4 :]
    (tmp_path / "a.mp4").write_bytes(data)
    assert taken(tmp_path / "a.mp4") == taken(cut)


def test_missing_times_are_counted_by_frames(cut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = taken(cut)
    monkeypatch.setattr(video_module._Reader, "_time", lambda *_: None)
    assert taken(cut) == expected
    assert Video(cut).frame_at(2.5).time == 2.5


def test_times_that_do_not_rise_are_counted_by_frames(
    cut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = taken(cut)
    real = video_module._Reader._time

    def reset(self: object, frame: object) -> float | None:
        at = real(self, frame)
        return at if at < 2 else at - 2

    monkeypatch.setattr(video_module._Reader, "_time", reset)
    assert taken(cut) == expected


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_broken_off_video_is_read_up_to_there(tmp_path: Path, suffix: str) -> None:
    options = FAST if suffix == "mp4" else {}
    whole = write_video(tmp_path / f"whole.{suffix}", [(drawn(0), 6)], options=options)
    data = whole.read_bytes()
    part = tmp_path / f"part.{suffix}"
    part.write_bytes(data[: len(data) * 6 // 10])
    video = Video(part)
    frames = list(video)
    times = [frame.time for frame in frames]
    assert times == [float(second) for second in range(len(times))]
    assert 2 <= len(times) <= 5
    assert video.damage.startswith(f"breaks off after 0:0{len(times) - 1}.")
    assert np.abs(frames[-1].image.astype(int) - np.asarray(drawn(0))).max() < 80
    whole_video = Video(whole)
    assert len(list(whole_video)) == 6
    assert whole_video.damage == ""


def test_damaged_frames_are_passed_over_and_told(tmp_path: Path) -> None:
    jpeg = {"codec": "mjpeg", "pixels": "yuvj420p"}
    path = write_video(tmp_path / "a.mkv", [(drawn(0), 3)], **jpeg)
    whole = [frame.image for frame in Video(path)]
    start = b"\xff\xd8\xff"
    head, *frames = path.read_bytes().split(start)
    assert len(frames) == 30
    for number in range(10, 14):
        frames[number] = bytes(5000) + frames[number][5000:]
    path.write_bytes(start.join([head, *frames]))
    video = Video(path)
    frames_left = list(video)
    assert [frame.time for frame in frames_left] == [0.0, 1.4, 2.4]
    assert np.array_equal(frames_left[1].image, whole[1])
    assert video.damage == "some of its frames cannot be decoded"


def test_files_that_are_no_video_say_why(cut: Path, tmp_path: Path) -> None:
    def file(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    assert reason_of(file("empty.mp4", b"")) == "empty file"
    assert reason_of(file("noise.mp4", b"noise" * 2000)) == "not a video"
    assert reason_of(tmp_path / "none.mp4") == "missing"
    assert reason_of(tmp_path) == "not a regular file"
    assert reason_of(write_sound(tmp_path / "sound.mp4")) == "no video stream"
    plain = write_video(tmp_path / "plain.mp4", [(grey(9), 1), (grey(200), 1)]).read_bytes()
    assert reason_of(file("cut.mp4", plain[: len(plain) // 2])) == "truncated"
    assert reason_of(file("box.mp4", b"\0\0\0\x18ftypmp42" + bytes(4096))) == "damaged"


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nother.mp4\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile other.mp4\n",
    ],
)
def test_list_of_other_files_is_not_followed(cut: Path, tmp_path: Path, content: bytes) -> None:
    shutil.copy(cut, tmp_path / "other.mp4")
    (tmp_path / "list.mp4").write_bytes(content)
    assert reason_of(tmp_path / "list.mp4") == "not a video"


def test_too_many_pixels_are_refused_before_they_are_decoded(cut: Path) -> None:
    with pytest.raises(PhotoError, match=r"320×352 is more than 100,000") as caught:
        list(Video(cut, max_pixels=100_000))
    assert caught.value.reason == "too many pixels"


def test_video_without_a_frame_for_too_long_is_given_up(
    cut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_module, "STALL_SECONDS", -1.0)
    assert reason_of(cut) == "takes too long"


def test_callers_time_does_not_count(cut: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(video_module.time, "monotonic", lambda: now[0])
    times = []
    for frame in Video(cut):
        times.append(frame.time)
        now[0] += 1000
    assert times == [0.0, 1.0, 2.0, 2.5, 3.5]


def test_file_that_grows_meanwhile_is_not_taken(cut: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    shutil.copy(cut, path)
    frames = iter(Video(path))
    next(frames)
    with path.open("ab") as file:
        file.write(bytes(100))
    with pytest.raises(PhotoError, match="it is being written") as caught:
        list(frames)
    assert caught.value.reason == "changed while in use"


def test_without_the_package_the_error_has_the_pip_line(
    cut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(PhotoError, match=r"pip install 'face2vec\[video\]'") as caught:
        Video(cut)
    assert caught.value.reason == "needs face2vec[video]"


def test_kind_is_that_of_the_bytes_but_photos_are_not_opened(cut: Path, tmp_path: Path) -> None:
    drawn(0).save(tmp_path / "photo.mp4", "JPEG")
    shutil.copy(cut, tmp_path / "video")
    shutil.copy(cut, tmp_path / "video.jpg")
    (tmp_path / "text.txt").write_text("text", encoding="utf-8")
    (tmp_path / "text.MOV").write_text("text", encoding="utf-8")
    assert is_video(cut)
    assert not is_video(tmp_path / "photo.mp4")
    assert is_video(tmp_path / "video")
    assert not is_video(tmp_path / "video.jpg")
    assert not is_video(tmp_path / "text.txt")
    assert is_video(tmp_path / "text.MOV")
    assert is_video(tmp_path / "none.mp4")
    assert not is_video(tmp_path / "none")


def test_clock_words() -> None:
    assert [clock(seconds) for seconds in (0, 3.04, 59.97, 60, 3723.5, math.pi * 1e5)] == [
        *("0:00.0", "0:03.0", "0:59.9", "1:00.0", "1:02:03.5", "87:15:59.2"),
    ]
