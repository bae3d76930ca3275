"""The teachers of a distillation: one network, or several whose embeddings are put together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from face2vec.encoding.embed import Embedder
from face2vec.errors import SettingsError
from face2vec.files import written_whole
from face2vec.models.store import load_model
from face2vec.runtime.select import Runtime

AT_ONCE = 64  # crops


class Teachers:
    """Networks whose embeddings a student follows.

    The embeddings of several teachers are put one after the other, each of unit length, so that
    each has the same weight in a cosine. A student with fewer numbers learns a projection of them,
    see `shorten`.

    Attributes:
        input_size: side in pixels of the crops that it takes, the largest of the teachers'.
        dimension: numbers in an embedding.

    Args:
        models: keys or files of models, as for `Face2Vec`.
        runtime: the runtime to run them with.
    """

    def __init__(self, models: Sequence[str], runtime: Runtime) -> None:
        self._embedders = [Embedder(load_model(model), runtime) for model in models]
        self._axes: NDArray[np.float32] | None = None
        self.input_size = max(one.description.input_size for one in self._embedders)
        self.dimension = sum(one.description.dimension for one in self._embedders)

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings of crops, float32 (n, d) of unit length.

        Args:
            crops: RGB uint8 (n, side, side, 3) of any side.
        """
        several = [one(resized(crops, one.description.input_size)) for one in self._embedders]
        whole = several[0] if len(several) == 1 else np.concatenate(several, axis=1)
        return unit_rows(whole if self._axes is None else whole @ self._axes)

    def of_all(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same for many crops, on all cores.

        Args:
            crops: RGB uint8 (n, side, side, 3) of any side.

        Returns:
            float32 (n, d) of unit length.
        """
        parts = [crops[start : start + AT_ONCE] for start in range(0, len(crops), AT_ONCE)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return np.concatenate(list(pool.map(self, parts)))

    def shorten(self, dimension: int, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project embeddings to fewer numbers from now on.

        The projection keeps most of the cosines: its axes are the eigenvectors with the largest
        eigenvalues of the embeddings' second moments, not centred.

        Args:
            dimension: numbers in an embedding.
            embeddings: embeddings to find the axes with, float32 (n, d) of unit length.

        Returns:
            ``embeddings`` after the projection, float32 (n, dimension) of unit length.

        Raises:
            SettingsError: the teachers have fewer numbers than that.
        """
        if dimension > self.dimension:
            raise SettingsError(
                f"dimension {dimension} is above the {self.dimension} numbers of the teachers"
            )
        moments = embeddings.T.astype(np.float64) @ embeddings
        axes = np.linalg.eigh(moments)[1][:, ::-1][:, :dimension]
        axes *= np.where(axes.sum(axis=0) < 0, -1.0, 1.0)  # a sign that does not depend on LAPACK
        self._axes, self.dimension = axes.astype(np.float32), dimension
        return unit_rows(embeddings @ self._axes)


def remembered_targets(
    path: Path, teachers: Teachers, crops: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """`Teachers.of_all`, stored in a file so that a resumed training does not compute it again.

    The targets of the first crops are computed each time, to verify that the file belongs to these
    teachers and these crops.

    Args:
        path: the file; written if it does not exist or does not match.
        teachers: the networks whose embeddings are the targets.
        crops: RGB uint8 (n, side, side, 3) of any side.

    Returns:
        float32 (n, d) of unit length.
    """
    if path.exists():
        kept: NDArray[np.float32] = np.load(path, allow_pickle=False)
        first = teachers.of_all(crops[:AT_ONCE])
        if len(kept) == len(crops) and np.allclose(kept[:AT_ONCE], first, atol=1e-3):
            return kept
    targets = teachers.of_all(crops)
    with written_whole(path) as stream:
        np.save(stream, targets)
    return targets


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at unit length.

    Args:
        rows: float32 (n, d), none of them 0.

    Returns:
        float32 (n, d).
    """
    scaled: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def resized(crops: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The same crops at another size.

    Args:
        crops: RGB uint8 (n, height, width, 3).
        side: side of the results in pixels.

    Returns:
        RGB uint8 (n, side, side, 3).
    """
    if crops.shape[1] == side:
        return crops
    size, how = (side, side), Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(one).resize(size, how)) for one in crops])
