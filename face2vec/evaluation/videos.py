"""Videos of known people, as in YouTube Faces: frames, faces, and pairs in ten folds.

The similarity of two videos is the mean similarity of all pairs of faces from their first hundred
frames with a face (Schroff et al., FaceNet, 2015, section 5.7). This equals the dot product of
their mean embeddings, so a video is stored as one mean embedding, whose length is below 1.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import MissingExtraError, PhotoError, SettingsError
from face2vec.evaluation.encoders import EncodedFace, PhotoEncoder, open_encoder
from face2vec.evaluation.sets import NO_FACE_FOUND, NamedFaces, Pair
from face2vec.files import expanded, text_of
from face2vec.photos.sources import PhotoLike
from face2vec.types import nearest_to

SPLITS = "splits.txt"
FOLDERS = ("", "frame_images_DB", "aligned_images_DB")
"""Possible folders of the videos; the last two are those of YouTube Faces."""
FRAMES = 100
LABELS = "labeled_faces.txt"


def youtube_pairs(folder: Path) -> list[Pair]:
    """Read the pairs of videos from ``splits.txt`` in a folder.

    Each line has, separated by commas, a fold (from 1), two videos as NAME/NUMBER, and 1 for one
    person or 0 for two. A video is a folder of frames or a video file of that name.

    Raises:
        SettingsError: there is no such file, it has another form, or a video does not exist.
    """
    folder = Path(expanded(folder))
    file = folder.resolve() / SPLITS
    if not file.is_file():
        raise SettingsError(f"{folder} has no {SPLITS}, the list of pairs of videos")
    pairs = []
    for number, line in enumerate(text_of(file).splitlines(), 1):
        cells = [cell.strip() for cell in line.split(",")]
        if not cells[0].isdecimal():  # the headings or an empty line
            continue
        if len(cells) < 4 or cells[3] not in ("0", "1"):
            raise SettingsError(
                f"{file}, line {number}: must be a fold, two videos, and 0 or 1, with commas"
            )
        first, second = (_video(folder.resolve(), name, file, number) for name in cells[1:3])
        pairs.append(Pair(first, second, cells[3] == "1", int(cells[0]) - 1))
    if len({pair.fold for pair in pairs}) < 2:
        raise SettingsError(f"{file} has pairs in fewer than two folds")
    return pairs


def named_videos(
    pairs: Iterable[Pair], *, model: str | Path | None = None, progress: bool = False
) -> NamedFaces:
    """Compute the mean embedding of each video; its person is the name of its folder.

    In each frame, the face nearest the position labelled by YouTube Faces is used, or nearest the
    centre if there is no label.

    Args:
        pairs: pairs of videos, see `youtube_pairs`.
        model: name of an encoder, see `open_encoder`.
        progress: whether to show a progress bar on standard error.

    Returns:
        The videos in place of photos; ``embeddings`` are means and not of unit length. Videos
        without a face in any frame are left out.

    Raises:
        MissingExtraError: a video is a video file, and PyAV is not installed.
        PhotoError: a video file cannot be read.
        ModelError: the model cannot be found or loaded.
    """
    from tqdm import tqdm

    videos = sorted({video for pair in pairs for video in (pair.first, pair.second)})
    names = sorted({video.parent.name for video in videos})
    found: list[tuple[Path, EncodedFace, NDArray[np.float32]]] = []
    with closing(open_encoder(model)) as encoder:
        for video in tqdm(videos, unit="video", disable=not progress, dynamic_ncols=True):
            faces = list(islice(_faces(encoder, video), FRAMES))
            rows = [face.embedding for face in faces]
            if rows:
                found.append((video, faces[0], np.mean(rows, axis=0, dtype=np.float32)))
    numbers = {name: number for number, name in enumerate(names)}
    return NamedFaces(
        tuple(video for video, _, _ in found),
        tuple(face.box for _, face, _ in found),
        np.arange(len(found)),
        np.stack([mean for _, _, mean in found]) if found else np.empty((0, 0), np.float32),
        np.array([numbers[video.parent.name] for video, _, _ in found], np.int64),
        tuple(names),
        np.bincount([numbers[video.parent.name] for video in videos], minlength=len(names)),
        encoder.name,
        encoder.weights,
        tuple(
            (str(video), NO_FACE_FOUND)
            for video in videos
            if video not in {one for one, *_ in found}
        ),
    )


def frames_of(video: Path) -> Iterator[tuple[str, PhotoLike]]:
    """Yield the name and photo of each frame of a folder or video file.

    The files of a folder are sorted by the numbers in their names.

    Raises:
        MissingExtraError: it is a video file, and PyAV is not installed.
        PhotoError: the video file cannot be read.
    """
    if video.is_dir():
        files = [file for file in video.iterdir() if file.is_file()]
        yield from ((file.name, file) for file in sorted(files, key=_by_numbers))
        return
    try:
        av = importlib.import_module("av")
    except ImportError as error:
        raise MissingExtraError("reading a video file", "av", "video") from error
    try:
        with av.open(str(video)) as film:
            for number, frame in enumerate(film.decode(video=0)):
                yield str(number), frame.to_ndarray(format="rgb24")
    except (av.error.FFmpegError, IndexError) as error:
        raise PhotoError(str(video), "not a video", str(error)) from error


def _faces(encoder: PhotoEncoder, video: Path) -> Iterator[EncodedFace]:
    """Yield one face of each frame that has a face."""
    places = _labelled(video)
    names: list[str] = []

    def photos() -> Iterator[PhotoLike]:
        for name, photo in frames_of(video):
            names.append(name)
            yield photo

    for number, frame in enumerate(encoder.encode(photos())):
        middle = frame.width / 2, frame.height / 2
        face = nearest_to(frame.faces, *places.get(names[number], middle))
        if face is not None:
            yield face


def _labelled(video: Path) -> dict[str, tuple[float, float]]:
    r"""Centre of the labelled face by frame, from lines such as ``Ann\0\0.1.jpg,0,160,120,…``."""
    file = video.parent.with_name(f"{video.parent.name}.{LABELS}")
    if not file.is_file():
        return {}
    places = {}
    for line in text_of(file).splitlines():
        cells = line.split(",")
        parts = re.split(r"[\\/]", cells[0])
        if len(cells) > 3 and len(parts) == 3 and parts[1] == video.name:
            places[parts[2]] = float(cells[2]), float(cells[3])
    return places


def _video(folder: Path, name: str, file: Path, line: int) -> Path:
    for root in FOLDERS:
        place = folder / root / name
        if place.is_dir():
            return place
        films = sorted(place.parent.glob(f"{place.name}.*")) if place.parent.is_dir() else []
        if films:
            return films[0]
    raise SettingsError(f"{file}, line {line}: there is no video {name} in {folder}")


def _by_numbers(file: Path) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", file.stem)], file.name
