"""What a user searches with, as faces and embeddings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import GalleryMismatchError, NoFaceError, SettingsError
from face2vec.gallery.gallery import Gallery
from face2vec.photos.sources import PhotoLike, array_of
from face2vec.session import Session
from face2vec.types import Face, Photo, QualityParts, largest_sure

log = logging.getLogger("face2vec")

Query = PhotoLike | Photo | Face | NDArray[np.float32] | Sequence[PhotoLike | Photo]


class QueryFaces(NamedTuple):
    """The faces of a query.

    Attributes:
        name: what the user called the query.
        faces: one for each embedding; None where only an embedding was given.
        embeddings: float32 (n, d) of unit length.
        source: what thumbnails of the faces can be cut from, or None.
        averaged: embeddings float32 (m, d) that the only one is the mean of; none otherwise.
    """

    name: str
    faces: Sequence[Face | None]
    embeddings: NDArray[np.float32]
    source: Any
    averaged: Sequence[NDArray[np.float32]] = ()


class QueryReader:
    """Turns queries into faces and embeddings.

    Args:
        session: gives the encoder and the gallery.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def open(self, photo: PhotoLike | Photo) -> Photo:
        """A photo, decoded for detection.

        Raises:
            PhotoError: the photo cannot be read.
        """
        return photo if isinstance(photo, Photo) else self._session.encoder().read(photo)

    def faces_of(self, query: Query) -> QueryFaces:
        """The faces of a query for the gallery, see `Face2Vec.search`.

        Raises:
            PhotoError: the photo cannot be read.
            NoFaceError: none of several photos has a face.
            SettingsError: an embedding has another dimension, or a face has no embedding.
            GalleryMismatchError: the query was made with another model.
        """
        gallery = self._session.gallery()
        query = _with_array(query)
        if isinstance(query, Face):
            return QueryFaces("<face>", [query], self._embedding_in(gallery, query)[None], None)
        if isinstance(query, np.ndarray) and query.dtype.kind == "f":
            rows = unit_rows(query, gallery.dimension)
            return QueryFaces("<embedding>", [None] * len(rows), rows, None)
        self._session.check_model()
        if isinstance(query, list | tuple):
            return self._one_person(query)
        photo = self.open(cast("PhotoLike | Photo", query))
        faces = self._session.encoder().encode(photo)
        found = [face.embedding for face in faces if face.embedding is not None]
        embeddings = np.stack(found) if found else np.empty((0, 0), np.float32)
        return QueryFaces(photo.name, faces, embeddings, photo.source)

    def side_of(
        self, query: PhotoLike | Photo | Face | NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], QualityParts | None]:
        """One side of a verification: embedding float32 (d,), or embeddings float32 (n, d).

        The second value is what the face's quality is made of, None if that is not known.

        Raises:
            PhotoError: the photo cannot be read.
            NoFaceError: the photo has no face.
            SettingsError: an embedding has another dimension, or a face has no embedding.
            GalleryMismatchError: the query was made with another model.
        """
        session = self._session
        query = _with_array(query)
        if isinstance(query, np.ndarray) and query.dtype.kind == "f":
            # A gallery knows the dimension without its model.
            made_by = session.gallery() if session.has_gallery else session.model().description
            rows = unit_rows(query, made_by.dimension)
            return (rows if query.ndim == 2 else rows[0]), None
        if isinstance(query, Face):
            if query.embedding is None or session.has_gallery:
                return self._embedding_in(session.gallery(), query), query.parts
            return embedding_of(query, session.model().fingerprint.digest), query.parts
        if session.has_gallery:
            session.check_model()
        found = self._one_person([cast("PhotoLike | Photo", query)])
        face = found.faces[0]
        return found.embeddings[0], None if face is None else face.parts

    def _embedding_in(self, gallery: Gallery, face: Face) -> NDArray[np.float32]:
        if face.embedding is not None:
            return embedding_of(face, gallery.fingerprint.model.digest)
        stored = gallery_face(face, gallery)
        if stored is None or stored.embedding is None:
            raise SettingsError(
                f"{face!r} has no embedding and is not in the gallery; search with a face from "
                "encode() or from a match"
            )
        return stored.embedding

    def _one_person(self, photos: Sequence[PhotoLike | Photo]) -> QueryFaces:
        """The largest face of each photo, and the mean of their embeddings."""
        if not photos:
            raise SettingsError("the list of query photos is empty; give at least one photo")
        encoder = self._session.encoder()
        opened = [self.open(photo) for photo in photos]
        name = ", ".join(photo.name for photo in opened)
        largest = []
        for encoded, photo in zip(encoder.stream(opened, encoder.unopened), opened, strict=True):
            if encoded.error is not None:
                raise encoded.error
            if len(encoded.faces) > 1:
                log.warning("%s: took the largest sure face of %d", photo.name, len(encoded.faces))
            if encoded.faces:
                largest.append((largest_sure(encoded.faces), photo))
        if not largest:
            raise NoFaceError(f"no face found in any of: {name}; give photos that show the person")
        if len(largest) < len(opened):
            log.warning("no face in %d of %d photos", len(opened) - len(largest), len(opened))
        averaged = [f.embedding for f, _ in largest if f.embedding is not None]
        total = np.sum(averaged, axis=0)
        mean = (total / np.linalg.norm(total)).astype(np.float32)
        face, photo = max(largest, key=lambda pair: pair[0].area)
        faces = [face.with_embedding(mean, face.model)]
        return QueryFaces(name, faces, mean[None], photo.source, averaged)


def _with_array(query: Any) -> Any:
    """The query; an array of another package as one of NumPy."""
    array = array_of(query)
    return query if array is None else array


def embedding_of(face: Face, model: str) -> NDArray[np.float32]:
    """The embedding float32 (d,) that a face carries.

    Args:
        face: has an embedding.
        model: `ModelFingerprint.digest` of the model that it has to be by.

    Raises:
        GalleryMismatchError: the embedding is by another model.
    """
    if face.model and face.model != model:
        raise GalleryMismatchError(
            f"the embedding of {face!r} is by another model than that of the gallery; embeddings "
            "of different models cannot be compared, so encode its photo again"
        )
    assert face.embedding is not None
    return face.embedding


def gallery_face(face: Face, gallery: Gallery) -> Face | None:
    """The face as the gallery has it, or None if its id is that of another gallery's face."""
    with gallery.read() as now:
        stored = now.stored_faces([] if face.id is None else [face.id])
    for one in stored:
        own = one.face
        same_place = (own.box, own.landmarks, own.confidence) == (
            face.box,
            face.landmarks,
            face.confidence,
        )
        if not same_place:
            continue
        if own.embedding is None or face.embedding is None:
            return own
        if np.array_equal(own.embedding, face.embedding):
            return own
    return None


def unit_rows(query: NDArray[Any], dimension: int) -> NDArray[np.float32]:
    """Embeddings of a query as rows of unit length.

    Args:
        query: floating, (d,) or (n, d).
        dimension: d.

    Returns:
        float32 (n, d).

    Raises:
        SettingsError: the shape is wrong, or an embedding has length 0 or is not finite.
    """
    rows: NDArray[np.float32] = np.array(query, dtype=np.float32, ndmin=2)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise SettingsError(
            f"the query has shape {query.shape}; embeddings of this gallery have shape "
            f"({dimension},), or (n, {dimension}) for several"
        )
    with np.errstate(over="ignore"):  # it is refused
        lengths = np.sqrt(np.vecdot(rows, rows))
    if not ((lengths > 0) & (lengths < np.inf)).all():
        raise SettingsError("an embedding of the query has length 0 or is not finite in float32")
    rows /= lengths[:, None]
    return rows
