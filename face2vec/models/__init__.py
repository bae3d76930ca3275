"""Models: catalogue, descriptions, downloads, and files ready to run."""

from __future__ import annotations

from face2vec.models.cache import cache_dir
from face2vec.models.catalogue import CATALOGUE, DEFAULT_MODEL, find_model
from face2vec.models.description import FIVE_POINTS, ModelDescription, standardize
from face2vec.models.store import LoadedModel, calibration_of, load_model

__all__ = [
    "CATALOGUE",
    "DEFAULT_MODEL",
    "FIVE_POINTS",
    "LoadedModel",
    "ModelDescription",
    "cache_dir",
    "calibration_of",
    "find_model",
    "load_model",
    "standardize",
]
