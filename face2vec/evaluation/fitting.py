"""Fits a calibration on photos of known people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from face2vec.calibration import Calibration, fit
from face2vec.evaluation.metrics import all_pairs
from face2vec.evaluation.sets import NamedPhotos, named_faces


def calibration_on(
    photos: NamedPhotos,
    gallery: Path | None = None,
    *,
    model: str | Path | None = None,
    data: str,
    progress: bool = False,
    **settings: Any,
) -> Calibration:
    """Fit a calibration on all pairs of photos.

    Args:
        photos: the photos with their people.
        gallery: folder of a gallery for their faces, see `named_faces`.
        model: the model, see `Face2Vec`.
        data: description of the photos.
        progress: whether to show a progress bar on standard error.
        settings: other settings of `Face2Vec`.

    Raises:
        CalibrationError: there are too few pairs.
    """
    faces = named_faces(photos, gallery, model=model, progress=progress, **settings)
    pairs = all_pairs(faces.embeddings, faces.people, faces.counts, highest_far=0)
    return fit(
        pairs.genuine,
        pairs.impostor,
        model=faces.model,
        weights=faces.weights,
        data=data,
        people=len(faces.names),
    )
