"""Videos of known people: frames, video files, mean similarities, and ``evaluate youtube``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import needs
from PIL import Image

from face2vec import Face2Vec, samples
from face2vec.cli.main import main
from face2vec.errors import MissingExtraError, PhotoError, SettingsError
from face2vec.evaluation import videos
from face2vec.evaluation.sets import Pair
from face2vec.evaluation.videos import frames_of, named_videos, youtube_pairs

PEOPLE, VIDEOS, SHOTS = 4, 2, 3
SPLITS = """split number, first name, second name, is same
1, P0/0, P0/1, 1
1, P0/0, P1/0, 0
1, P1/0, P1/1, 1
1, P1/1, P0/1, 0
2, P2/0, P2/1, 1
2, P2/0, P3/0, 0
2, P3/0, P3/1, 1
2, P3/1, P2/1, 0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn people; the frames' names do not sort by number, and one frame has no face."""
    folder = tmp_path_factory.mktemp("youtube")
    for number, person in enumerate(samples.people(PEOPLE, seed=13)):
        for video in range(VIDEOS):
            place = folder / "frame_images_DB" / f"P{number}" / str(video)
            place.mkdir(parents=True)
            for shot in range(SHOTS):
                photo = person.photo(SHOTS * video + shot)
                (place / f"{video}.{8 + shot}.jpg").write_bytes(photo.jpeg())
    Image.linear_gradient("L").convert("RGB").save(place / "1.9.jpg")
    (folder / "splits.txt").write_text(SPLITS, encoding="utf-8")
    return folder


def test_youtube_pairs_are_read_with_their_folds(folder: Path) -> None:
    pairs = youtube_pairs(folder)
    root = folder / "frame_images_DB"
    assert pairs[1] == Pair(root / "P0" / "0", root / "P1" / "0", False, 0)
    assert [pair.fold for pair in pairs] == [0] * 4 + [1] * 4
    assert [pair.same for pair in pairs] == [True, False] * 4


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("1, P0/0, P9/0, 1\n2, P0/0, P1/0, 0", r"line 1: there is no video P9/0"),
        ("1, P0/0, P0/1, yes", r"line 1: must be a fold, two videos, and 0 or 1"),
        ("1, P0/0, P0/1, 1", "fewer than two folds"),
    ],
)
def test_invalid_splits_are_refused(folder: Path, tmp_path: Path, lines: str, said: str) -> None:
    (tmp_path / "frame_images_DB").symlink_to(folder / "frame_images_DB")
    (tmp_path / "splits.txt").write_text(lines, encoding="utf-8")
    with pytest.raises(SettingsError, match=said):
        youtube_pairs(tmp_path)


def test_folder_without_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"has no splits\.txt"):
        youtube_pairs(tmp_path)


def test_frames_of_a_folder_are_sorted_by_number(folder: Path) -> None:
    names = [name for name, _ in frames_of(folder / "frame_images_DB" / "P0" / "1")]
    assert names == ["1.8.jpg", "1.9.jpg", "1.10.jpg"]


def test_similarity_of_videos_is_the_mean_over_pairs_of_faces(folder: Path) -> None:
    named = named_videos(youtube_pairs(folder), model="mini")
    assert named.names == ("P0", "P1", "P2", "P3")
    assert named.counts.tolist() == [VIDEOS] * PEOPLE
    rows = {video: row for row, video in enumerate(named.photos)}
    first, second = (folder / "frame_images_DB" / "P3" / str(video) for video in range(2))
    with Face2Vec(model="mini") as engine:
        one, other = (
            [engine.encode(photo)[0].embedding for _, photo in frames_of(video)
             if engine.encode(photo)]
            for video in (first, second)
        )  # fmt: skip
    assert (len(one), len(other)) == (SHOTS, SHOTS - 1)
    slow = np.mean([a @ b for a in one for b in other])
    quick = named.embeddings[rows[first]] @ named.embeddings[rows[second]]
    assert quick == pytest.approx(slow, abs=1e-5)


def test_named_videos_use_only_the_first_frames_with_a_face(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "FRAMES", 1)
    pair = youtube_pairs(folder)[0]
    named = named_videos([pair], model="mini")
    np.testing.assert_allclose(np.linalg.norm(named.embeddings, axis=1), 1, atol=1e-5)


def test_face_of_a_frame_is_at_the_labelled_position(tmp_path: Path) -> None:
    group = samples.group_photo(samples.people(3, seed=4), 1)
    boxes = sorted(face.box for face in group.faces)
    for name in ("0", "1"):
        (tmp_path / "Ann" / name).mkdir(parents=True)
        (tmp_path / "Ann" / name / f"{name}.1.jpg").write_bytes(group.jpeg())
    middles = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (boxes[0], boxes[-1])]
    (tmp_path / "Ann.labeled_faces.txt").write_text(
        "".join(
            f"Ann\\{name}\\{name}.1.jpg,0,{x},{y},90,90,0,0\n"
            for name, (x, y) in zip("01", middles, strict=True)
        )
    )
    pair = Pair(tmp_path / "Ann" / "0", tmp_path / "Ann" / "1", True, 0)
    named = named_videos([pair], model="mini")
    for box, (x, y) in zip(named.boxes, middles, strict=True):
        assert box[0] < x < box[2]
        assert box[1] < y < box[3]


def test_video_file_equals_its_frames(folder: Path, tmp_path: Path) -> None:
    needs("video", "av")
    import av

    frames = [Image.open(photo).convert("RGB").resize((320, 320)) for _, photo in
              frames_of(folder / "frame_images_DB" / "P0" / "0")]  # fmt: skip
    with av.open(str(tmp_path / "film.mkv"), "w") as film:
        stream = film.add_stream("mjpeg", rate=5)
        stream.width = stream.height = 320
        stream.pix_fmt = "yuvj444p"
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_image(frame)))
        film.mux(stream.encode())
    read = [photo for _, photo in frames_of(tmp_path / "film.mkv")]
    assert len(read) == SHOTS
    for one, other in zip(read, frames, strict=True):
        assert np.abs(np.asarray(one, np.float64) - np.asarray(other)).mean() < 6


def test_invalid_video_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("video", "av")
    (tmp_path / "film.mp4").write_bytes(b"not a video")
    with pytest.raises(PhotoError, match="not a video"):
        list(frames_of(tmp_path / "film.mp4"))
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'face2vec\[video\]'"):
        list(frames_of(tmp_path / "film.mp4"))


def test_evaluate_youtube_prints_accuracy(folder: Path) -> None:
    words = ["evaluate", "youtube", str(folder), "--model", "mini", "-q"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "Videos, people" in done.stdout
    assert "Accuracy, ten folds ± standard error" in done.stdout
    assert "pairs with a video without a face" in done.stdout
    figures = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    assert figures["view_2_accuracy"] >= 0.75
    assert figures["photos"] == PEOPLE * VIDEOS
