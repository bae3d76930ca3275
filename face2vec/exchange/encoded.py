"""A photo with its faces and embeddings as one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from face2vec.encoding.encoder import Encoder
from face2vec.encoding.files import stream_files
from face2vec.errors import PhotoError
from face2vec.exchange.formats import json_with
from face2vec.fingerprint import ModelFingerprint
from face2vec.photos.discover import FoundPhoto
from face2vec.photos.video import Video, is_video
from face2vec.report.matches import face_dict
from face2vec.types import Face, Unopened


@dataclass(frozen=True, eq=False)
class EncodedPhoto:
    """A photo that was encoded.

    Attributes:
        photo: absolute path of the photo.
        width: width in pixels of the upright photo, 0 if it could not be read.
        height: height in pixels of the upright photo, 0 if it could not be read.
        faces: the faces with their embeddings float32 (d,), most confident first.
        model: what made the embeddings.
        error: why the photo could not be read, or None.
        damage: what of the photo is missing, or empty.
    """

    photo: str
    width: int
    height: int
    faces: tuple[Face, ...]
    model: ModelFingerprint
    error: PhotoError | None = None
    damage: str = ""

    def to_json(self) -> str:
        """One line of ASCII JSON: photo, width, height, model, damage, error and faces.

        A face has ``box``, ``landmarks``, ``confidence``, ``quality``, ``parts`` and ``embedding``.
        ``model`` is the key of the model; ``model_digest`` is equal exactly where embeddings are
        comparable. ``error`` is the reason why the photo could not be read, or null.
        """
        head = json.dumps(
            {
                "photo": self.photo,
                "width": self.width,
                "height": self.height,
                "model": self.model.key,
                "model_digest": self.model.digest,
                "damage": self.damage,
                "error": None if self.error is None else self.error.reason,
            }
        )
        faces = ", ".join(
            json_with(face_dict(face), face.embedding)
            for face in self.faces
            if face.embedding is not None
        )
        return f'{head[:-1]}, "faces": [{faces}]}}'


def encoded_photos(encoder: Encoder, found: Iterable[FoundPhoto]) -> Iterator[EncodedPhoto]:
    """Encode photos and videos; one that cannot be read has its error.

    Args:
        encoder: the encoder.
        found: the photos, taken only as fast as needed.
    """
    model = encoder.model.fingerprint

    def video(photo: FoundPhoto) -> Video | None:
        path = photo.place
        return Video(path, max_pixels=encoder.max_pixels) if is_video(path) else None

    for done in stream_files(encoder, found, lambda photo: Unopened(photo.place), video):
        size = done.width, done.height
        yield EncodedPhoto(done.item.place, *size, done.faces, model, done.error, done.damage)
