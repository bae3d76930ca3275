"""Fits a calibration on photos of known people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from face2vec.calibration import Calibration, fit
from face2vec.crowding import Crowding
from face2vec.evaluation.metrics import all_pairs
from face2vec.evaluation.sets import NamedFaces, NamedPhotos, Which, named_faces
from face2vec.models import calibration_of


def calibration_on(
    photos: NamedPhotos,
    gallery: Path | None = None,
    *,
    model: str | Path | None = None,
    which: Which = "largest",
    data: str,
    progress: bool = False,
    **settings: Any,
) -> Calibration:
    """Fit a calibration on all pairs of photos.

    Args:
        photos: the photos with their people.
        gallery: folder of a gallery for their faces, see `named_faces`.
        model: the model, see `Face2Vec`.
        which: which face of a photo is the named person's, see `named_faces`.
        data: description of the photos.
        progress: whether to show a progress bar on standard error.
        settings: other settings of `Face2Vec`.

    Raises:
        CalibrationError: there are too few pairs.
    """
    faces = named_faces(photos, gallery, model=model, which=which, progress=progress, **settings)
    shipped = calibration_of(faces.model, faces.weights, faces.model)
    crowding = None if shipped is None else shipped.crowding
    return fitted(faces, crowding, data=data)


def fitted(faces: NamedFaces, crowding: Crowding | None, *, data: str) -> Calibration:
    """Fit a calibration on all pairs of faces of known people.

    Args:
        faces: one face of each photo.
        crowding: how near strangers come to a face; None if that is taken to be equal for all.
        data: description of the photos.

    Raises:
        CalibrationError: there are too few pairs.
    """
    crowded = None if crowding is None else crowding(faces.embeddings)
    pairs = all_pairs(faces.embeddings, faces.people, faces.counts, 0, crowded)
    return fit(
        pairs.genuine,
        pairs.impostor,
        model=faces.model,
        weights=faces.weights,
        data=data,
        people=len(faces.names),
        crowding=crowding,
    )
