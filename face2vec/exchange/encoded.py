"""A photo with its faces and embeddings as one line of JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass

from face2vec.errors import PhotoError
from face2vec.exchange.formats import json_with
from face2vec.fingerprint import ModelFingerprint
from face2vec.report.matches import face_dict
from face2vec.types import Face


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
