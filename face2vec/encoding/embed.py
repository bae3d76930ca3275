"""Computes embeddings of crops: standardises, runs the network in batches, normalises."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import ModelError
from face2vec.models import LoadedModel, standardize
from face2vec.runtime.select import Runtime

BATCH = 32  # crops in one run of the network


class Embedder:
    """An embedding network. Safe to use from several threads; each runs the network itself.

    Args:
        model: the network with its description.
        runtime: the runtime of the network.

    Attributes:
        description: description of the network's input and output.
        whole_batches: whether each run has `BATCH` crops, with the last batch padded. cuDNN
            needs up to a second for preparations whenever the batch size changes.
    """

    def __init__(self, model: LoadedModel, runtime: Runtime) -> None:
        self.description = model.description
        self._network = runtime.load(model.path, few_sizes=True)
        self.whole_batches = runtime.name == "cuda"

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the embeddings of crops.

        Args:
            crops: RGB uint8 (n, side, side, 3), aligned for the model.

        Returns:
            float32 (n, d), each of unit length.

        Raises:
            ModelError: the output of the network does not match its description.
        """
        model = self.description
        embeddings = np.empty((len(crops), model.dimension), np.float32)
        parts = _whole_batches if self.whole_batches else _powers_of_two
        for part in parts(len(crops)):
            total = self._run(crops[part])
            if model.mirror:
                total = total + self._run(crops[part][:, :, ::-1])
            embeddings[part] = total
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or (lengths == 0).any():
            raise ModelError(
                f"model {model.key!r} gave an embedding of zero or infinite length; check its "
                "weights and its description (mean, std)"
            )
        embeddings /= lengths
        return embeddings

    def _run(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        model = self.description
        pixels = standardize(crops, model)
        if self.whole_batches:
            spare = BATCH - len(crops)
            pixels = np.pad(pixels, [(0, spare), *[(0, 0)] * (pixels.ndim - 1)])
        outputs = self._network.run({self._network.input_name: pixels})
        shape = outputs[0].shape
        if shape[:1] != (len(pixels),) or outputs[0].size != len(pixels) * model.dimension:
            raise ModelError(
                f"model {model.key!r} gave embeddings of shape {shape} for input of shape "
                f"{pixels.shape}; its description requires ({len(pixels)}, {model.dimension})"
            )
        return outputs[0].reshape(len(pixels), model.dimension)[: len(crops)]


def _whole_batches(count: int) -> Iterator[slice]:
    for start in range(0, count, BATCH):
        yield slice(start, min(start + BATCH, count))


def _powers_of_two(count: int) -> Iterator[slice]:
    """Batches of 32, 16, 8, 4, 2 and 1, because OpenVINO compiles a network for each size."""
    start = 0
    while start < count:
        step = min(BATCH, 1 << ((count - start).bit_length() - 1))
        yield slice(start, start + step)
        start += step
