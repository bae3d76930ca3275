"""MTCNN's three networks as ONNX graphs, with the weights of the ``mtcnn`` package.

Zhang, Zhang, Li, Qiao: Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
Networks, 2016, figure 2. Each graph takes float32 RGB planes, pixel values minus 127.5. Its first
output is the logit of a face: the logit of the class "face" minus that of "no face".

====== ============================ =======================================
graph  input ``pixels``             outputs
====== ============================ =======================================
P-Net  (1, 3, height, width)        logits (1, 1, h, w), offsets (1, h, w, 4)
R-Net  (n, 3, 24, 24)               logits (n, 1), offsets (n, 4)
O-Net  (n, 3, 48, 48)               logits (n, 1), offsets (n, 4), landmarks (n, 10)
====== ============================ =======================================

R-Net and O-Net take the patches of `crop_graph`.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from face2vec.errors import ModelError

if TYPE_CHECKING:
    from face2vec.runtime.onnx_graph import Shape

Weights = list[NDArray[np.float32]]

PIXEL_MEAN = 127.5
PIXEL_SCALE = 128.0
CHANNEL_BLOCK = 16  # channels that the widest processors compute together

_SHAPES: dict[str, list[tuple[int, ...]]] = {
    "pnet": [
        (3, 3, 3, 10), (10,), (1, 1, 10), (3, 3, 10, 16), (16,), (1, 1, 16),
        (3, 3, 16, 32), (32,), (1, 1, 32), (1, 1, 32, 4), (4,), (1, 1, 32, 2), (2,),
    ],
    "rnet": [
        (3, 3, 3, 28), (28,), (1, 1, 28), (3, 3, 28, 48), (48,), (1, 1, 48),
        (2, 2, 48, 64), (64,), (1, 1, 64), (576, 128), (128,), (128,),
        (128, 4), (4,), (128, 2), (2,),
    ],
    "onet": [
        (3, 3, 3, 32), (32,), (1, 1, 32), (3, 3, 32, 64), (64,), (1, 1, 64),
        (3, 3, 64, 64), (64,), (1, 1, 64), (2, 2, 64, 128), (128,), (1, 1, 128),
        (1152, 256), (256,), (256,), (256, 4), (4,), (256, 10), (10,), (256, 2), (2,),
    ],
}  # fmt: skip


def read_weights(name: str) -> Weights:
    """Weights of "pnet", "rnet" or "onet", read without importing TensorFlow.

    The files are pickles (joblib). They are read only from the installed ``mtcnn`` package,
    which is as trusted as its code.

    Returns:
        Arrays float32 with the shapes of ``_SHAPES``, such as (3, 3, 3, 10) and (10,).

    Raises:
        ModelError: the package or the file is missing, or the arrays have other shapes.
    """
    import joblib
    import lz4.frame

    spec = importlib.util.find_spec("mtcnn")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "the package 'mtcnn', which contains the weights of the detector, is not installed; "
            "install it: pip install mtcnn"
        )
    path = Path(spec.submodule_search_locations[0]) / "assets" / "weights" / f"{name}.lz4"
    if not path.is_file():
        raise ModelError(
            f"{path} is missing; reinstall the package: pip install -U --force-reinstall mtcnn"
        )
    # Decompressed here: on Python 3.13 joblib's file object prints an error on stderr.
    pickled = io.BytesIO(lz4.frame.decompress(path.read_bytes()))
    weights: Weights = [np.asarray(array, np.float32) for array in joblib.load(pickled)]
    found = [array.shape for array in weights]
    if found != _SHAPES[name]:
        raise ModelError(f"{path} has arrays of shapes {found}, expected {_SHAPES[name]}")
    return weights


class _Chain:
    """A graph whose nodes read the previous node by default."""

    def __init__(self, last: str) -> None:
        from face2vec.runtime.onnx_graph import GraphBuilder  # imports onnx

        self.builder = GraphBuilder()
        self.last = last

    def constant(self, value: Any) -> str:
        return self.builder.constant(value, f"c{len(self.builder.constants)}")

    def then(
        self, kind: str, *constants: Any, after: str | None = None, out: str = "", **attributes: Any
    ) -> str:
        names = [self.constant(value) for value in constants]
        return self.read(kind, [after or self.last, *names], out, **attributes)

    def read(self, kind: str, inputs: Sequence[str], out: str = "", **attributes: Any) -> str:
        """Add a node with these inputs."""
        out = out or f"n{len(self.builder.nodes)}"
        self.last = self.builder.node(kind, inputs, out, **attributes)
        return self.last

    def convolve(self, weights: Sequence[NDArray[np.float32]], after: str | None = None) -> str:
        kernel, bias = weights
        return self.then("Conv", kernel.transpose(3, 2, 0, 1), bias, after=after)

    def prelu(self, slope: NDArray[np.float32]) -> str:
        """PReLU of the last node, for slopes up to 1: the maximum of y and slope · y."""
        assert slope.max() <= 1
        value = self.last  # ONNX Runtime's PRelu takes three times as long
        scaled = self.then("Mul", slope.reshape(-1, 1, 1) if slope.ndim == 3 else slope)
        return self.read("Max", [value, scaled])

    def convolve_and_pool(
        self,
        weights: Sequence[NDArray[np.float32]],
        slope: NDArray[np.float32],
        side: int,
        *,
        ceil: bool,
    ) -> NDArray[np.float32]:
        """Convolution, PReLU and `pool`, with the PReLU after the pooling, on fewer values.

        If the slope is not negative, the maximum of PReLU over a window is the PReLU of the
        maximum. Otherwise it is the larger of the PReLU of the maximum and of the minimum. The
        minimum comes from a second channel with the negated convolution.

        Returns:
            float32 (channels,), +1 or −1: the sign with which each channel is returned. With a
            slope above 1 PReLU is the minimum of y and slope · y, so the channel is negated.
        """
        channels = np.arange(slope.size)
        falling = channels[slope.ravel() < 0]
        # Whole blocks of channels, which ONNX Runtime pools without changing the layout; the
        # convolution computes whole blocks anyway.
        spare = -(len(channels) + len(falling)) % CHANNEL_BLOCK
        self.convolve([
            np.pad(np.concatenate([of, -of[..., falling]], axis=-1),
                   [(0, 0)] * (of.ndim - 1) + [(0, spare)])
            for of in weights
        ])  # fmt: skip
        pooled = self.pool(side, ceil=ceil)
        lowest = channels.copy()
        lowest[falling] = len(channels) + np.arange(len(falling))
        sign = np.where(slope.ravel() > 1, np.float32(-1), np.float32(1))
        self.then("Gather", lowest, after=pooled, axis=1)
        scaled = self.then("Mul", (np.abs(slope.ravel()) * sign).reshape(-1, 1, 1))
        self.then("Gather", channels, after=pooled, axis=1)
        if (sign < 0).any():
            self.then("Mul", sign.reshape(-1, 1, 1))
        self.read("Max", [self.last, scaled])
        return sign

    def pool(self, side: int, *, ceil: bool) -> str:
        # For these strides Keras' "same" padding pads only at the end, which is ceil mode.
        return self.then("MaxPool", kernel_shape=[side, side], strides=[2, 2], ceil_mode=int(ceil))

    def dense(self, weights: Sequence[NDArray[np.float32]], after: str | None = None) -> str:
        return self.then("Gemm", *weights, after=after)

    def face_logit(self, classes: Sequence[NDArray[np.float32]], trunk: str) -> None:
        """Output ``logits``: the logit of the second class minus that of the first."""
        kernel, bias = (values[..., 1:] - values[..., :1] for values in classes)
        if kernel.ndim == 4:
            self.then("Conv", kernel.transpose(3, 2, 0, 1), bias, after=trunk, out="logits")
        else:
            self.then("Gemm", kernel, bias, after=trunk, out="logits")

    def graph(self, inputs: dict[str, Shape], *outputs: str) -> bytes:
        model = self.builder.model("mtcnn", inputs, dict.fromkeys(outputs))
        return bytes(model.SerializeToString())


def _takes_pixels(weights: Weights) -> Weights:
    """A first convolution for pixels that are shifted but not scaled."""
    kernel, bias = weights
    return [kernel / np.float32(PIXEL_SCALE), bias]


def pnet_graph() -> bytes:
    """P-Net, the proposal network: fully convolutional, windows of 12 pixels, stride 2."""
    w = read_weights("pnet")
    chain = _Chain("pixels")
    sign = chain.convolve_and_pool(_takes_pixels(w[0:2]), w[2], 2, ceil=True)
    chain.convolve([w[3] * sign[:, None], w[4]])
    chain.prelu(w[5])
    chain.convolve(w[6:8])
    trunk = chain.prelu(w[8])
    chain.convolve(w[9:11])
    chain.then("Transpose", perm=[0, 2, 3, 1], out="offsets")
    chain.face_logit(w[11:13], trunk)
    return chain.graph({"pixels": [1, 3, "height", "width"]}, "logits", "offsets")


def _patch_convolutions(w: Weights) -> _Chain:
    """The first three convolutions of R-Net and O-Net."""
    chain = _Chain("pixels")
    sign = chain.convolve_and_pool(_takes_pixels(w[0:2]), w[2], 3, ceil=True)
    chain.convolve([w[3] * sign[:, None], w[4]])
    chain.prelu(w[5])
    chain.pool(3, ceil=False)
    chain.convolve(w[6:8])
    chain.prelu(w[8])
    return chain


def rnet_graph() -> bytes:
    """R-Net, the refinement network, for patches of 24 pixels."""
    w = read_weights("rnet")
    chain = _patch_convolutions(w)
    trunk = _flat_dense(chain, w[9:12], (3, 3, 64))
    chain.then("Gemm", *w[12:14], after=trunk, out="offsets")
    chain.face_logit(w[14:16], trunk)
    return chain.graph({"pixels": ["n", 3, 24, 24]}, "logits", "offsets")


def onet_graph() -> bytes:
    """O-Net, the output network, for patches of 48 pixels."""
    w = read_weights("onet")
    chain = _patch_convolutions(w)
    chain.pool(2, ceil=True)
    chain.convolve(w[9:11])
    chain.prelu(w[11])
    trunk = _flat_dense(chain, w[12:15], (3, 3, 128))
    chain.then("Gemm", *w[15:17], after=trunk, out="offsets")
    chain.then("Gemm", *w[17:19], after=trunk, out="landmarks")
    chain.face_logit(w[19:21], trunk)
    return chain.graph({"pixels": ["n", 3, 48, 48]}, "logits", "offsets", "landmarks")


def _flat_dense(chain: _Chain, weights: Weights, shape: tuple[int, int, int]) -> str:
    """A dense layer on feature maps; Keras flattens (x, y, channel), ONNX (channel, y, x)."""
    kernel, bias, slope = weights
    kernel = kernel.reshape(*shape, -1).transpose(2, 1, 0, 3).reshape(kernel.shape)
    chain.then("Flatten", axis=1)
    chain.dense([kernel, bias])
    return chain.prelu(slope)


def crop_graph(side: int) -> bytes:
    """A graph that cuts square patches from one image by bilinear sampling.

    Inputs: ``planes`` float32 (1, 3, height, width), pixel values minus 127.5, and ``boxes``
    float32 (n, 4), (left, top, right, bottom) of a grid of side × side cells whose centres are
    sampled.
    Output: ``patches`` float32 (n, 3, side, side); outside the image they are mid-grey.
    """
    chain = _Chain("planes")
    from onnx import helper

    count = chain.then("Shape", after="boxes", start=0, end=1)
    zeros = chain.then(
        "ConstantOfShape", after=count, value=helper.make_tensor("zero", 7, [1], [0])
    )
    chain.read(
        "RoiAlign",
        ["planes", "boxes", zeros],
        "patches",
        output_height=side,
        output_width=side,
        sampling_ratio=1,
        mode="avg",
        coordinate_transformation_mode="output_half_pixel",
    )
    return chain.graph({"planes": [1, 3, "height", "width"], "boxes": ["n", 4]}, "patches")
