"""FaceNet's network written down a second time, slowly and plainly, with random weights.

What the project's graph is compared with where TensorFlow is not installed:
nothing is folded, every layer is computed as the papers have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float32]
Layers = dict[str, dict[str, Array]]


class PlainFaceNet:
    """Inception-ResNet-v1 in numpy; a layer that has no weights yet draws them when it is run."""

    def __init__(self, dimension: int, *, seed: int = 0, layers: Layers | None = None) -> None:
        self.dimension = dimension
        self.layers: Layers = {} if layers is None else layers
        self._random = np.random.default_rng(seed)

    def embed(self, crops: Array) -> Array:
        """Standardised crops (n, 160, 160, 3) to unit vectors (n, dimension)."""
        x = self.conv(crops, "Conv2d_1a_3x3", 32, 3, 3, stride=2, padding="valid")
        x = self.conv(x, "Conv2d_2a_3x3", 32, 3, 3, padding="valid")
        x = self.conv(x, "Conv2d_2b_3x3", 64, 3, 3)
        x = max_pool(x)
        x = self.conv(x, "Conv2d_3b_1x1", 80, 1, 1, padding="valid")
        x = self.conv(x, "Conv2d_4a_3x3", 192, 3, 3, padding="valid")
        x = self.conv(x, "Conv2d_4b_3x3", 256, 3, 3, stride=2, padding="valid")
        for i in range(1, 6):
            x = self.block_35(x, f"Block35_{i}_")
        x = self.mixed_6a(x, "Mixed_6a_Branch_")
        for i in range(1, 11):
            x = self.block_17(x, f"Block17_{i}_")
        x = self.mixed_7a(x, "Mixed_7a_Branch_")
        for i in range(1, 6):
            x = np.maximum(self.block_8(x, f"Block8_{i}_", scale=0.2), 0)
        x = self.block_8(x, "Block8_6_", scale=1.0)
        x = x.mean(axis=(1, 2))
        x = x @ self.weight("Bottleneck", "kernel", (x.shape[1], self.dimension))
        x = self.batch_norm(x, "Bottleneck_BatchNorm")
        return x / np.sqrt(np.maximum((x * x).sum(axis=1, keepdims=True), 1e-12))

    def block_35(self, x: Array, name: str) -> Array:
        a = self.conv(x, name + "Branch_0_Conv2d_1x1", 32, 1, 1)
        b = self.conv(x, name + "Branch_1_Conv2d_0a_1x1", 32, 1, 1)
        b = self.conv(b, name + "Branch_1_Conv2d_0b_3x3", 32, 3, 3)
        c = self.conv(x, name + "Branch_2_Conv2d_0a_1x1", 32, 1, 1)
        c = self.conv(c, name + "Branch_2_Conv2d_0b_3x3", 32, 3, 3)
        c = self.conv(c, name + "Branch_2_Conv2d_0c_3x3", 32, 3, 3)
        return np.maximum(x + 0.17 * self.up(np.concatenate([a, b, c], -1), name, 256), 0)

    def block_17(self, x: Array, name: str) -> Array:
        a = self.conv(x, name + "Branch_0_Conv2d_1x1", 128, 1, 1)
        b = self.conv(x, name + "Branch_1_Conv2d_0a_1x1", 128, 1, 1)
        b = self.conv(b, name + "Branch_1_Conv2d_0b_1x7", 128, 1, 7)
        b = self.conv(b, name + "Branch_1_Conv2d_0c_7x1", 128, 7, 1)
        return np.maximum(x + 0.10 * self.up(np.concatenate([a, b], -1), name, 896), 0)

    def block_8(self, x: Array, name: str, scale: float) -> Array:
        a = self.conv(x, name + "Branch_0_Conv2d_1x1", 192, 1, 1)
        b = self.conv(x, name + "Branch_1_Conv2d_0a_1x1", 192, 1, 1)
        b = self.conv(b, name + "Branch_1_Conv2d_0b_1x3", 192, 1, 3)
        b = self.conv(b, name + "Branch_1_Conv2d_0c_3x1", 192, 3, 1)
        return x + scale * self.up(np.concatenate([a, b], -1), name, 1792)

    def mixed_6a(self, x: Array, name: str) -> Array:
        a = self.conv(x, name + "0_Conv2d_1a_3x3", 384, 3, 3, stride=2, padding="valid")
        b = self.conv(x, name + "1_Conv2d_0a_1x1", 192, 1, 1)
        b = self.conv(b, name + "1_Conv2d_0b_3x3", 192, 3, 3)
        b = self.conv(b, name + "1_Conv2d_1a_3x3", 256, 3, 3, stride=2, padding="valid")
        return np.concatenate([a, b, max_pool(x)], -1)

    def mixed_7a(self, x: Array, name: str) -> Array:
        a = self.conv(x, name + "0_Conv2d_0a_1x1", 256, 1, 1)
        a = self.conv(a, name + "0_Conv2d_1a_3x3", 384, 3, 3, stride=2, padding="valid")
        b = self.conv(x, name + "1_Conv2d_0a_1x1", 256, 1, 1)
        b = self.conv(b, name + "1_Conv2d_1a_3x3", 256, 3, 3, stride=2, padding="valid")
        c = self.conv(x, name + "2_Conv2d_0a_1x1", 256, 1, 1)
        c = self.conv(c, name + "2_Conv2d_0b_3x3", 256, 3, 3)
        c = self.conv(c, name + "2_Conv2d_1a_3x3", 256, 3, 3, stride=2, padding="valid")
        return np.concatenate([a, b, c, max_pool(x)], -1)

    def conv(
        self,
        x: Array,
        layer: str,
        filters: int,
        height: int,
        width: int,
        *,
        stride: int = 1,
        padding: str = "same",
    ) -> Array:
        kernel = self.weight(layer, "kernel", (height, width, x.shape[3], filters))
        if padding == "same":
            x = np.pad(x, ((0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0)))
        x = self.batch_norm(convolve(x, kernel, stride), layer + "_BatchNorm")
        return np.maximum(x, 0)

    def up(self, x: Array, name: str, filters: int) -> Array:
        layer = name + "Conv2d_1x1"
        kernel = self.weight(layer, "kernel", (1, 1, x.shape[3], filters))
        return convolve(x, kernel, 1) + self.weight(layer, "bias", (filters,))

    def batch_norm(self, x: Array, layer: str) -> Array:
        shape = x.shape[-1:]
        beta = self.weight(layer, "beta", shape)
        mean = self.weight(layer, "moving_mean", shape)
        variance = self.weight(layer, "moving_variance", shape)
        return (x - mean) / np.sqrt(variance + 0.001) + beta

    def weight(self, layer: str, name: str, shape: tuple[int, ...]) -> Array:
        arrays = self.layers.setdefault(layer, {})
        if name not in arrays:
            arrays[name] = self.draw(name, shape)
        assert arrays[name].shape == shape
        return arrays[name]

    def draw(self, name: str, shape: tuple[int, ...]) -> Array:
        if name == "moving_variance":
            return self._random.uniform(0.5, 1.5, shape).astype(np.float32)
        values = self._random.standard_normal(shape, np.float32)
        inputs = np.prod(shape[:-1])
        return values * np.float32(np.sqrt(2 / inputs) if name == "kernel" else 0.1)


def convolve(x: Array, kernel: Array, stride: int) -> Array:
    """Sum over the kernel's places of what lies under each, times its weights."""
    height, width, channels, filters = kernel.shape
    rows = (x.shape[1] - height) // stride + 1
    columns = (x.shape[2] - width) // stride + 1
    total = np.zeros((len(x) * rows * columns, filters), np.float32)
    for i in range(height):
        for j in range(width):
            under = x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
            total += under.reshape(-1, channels) @ kernel[i, j]
    return total.reshape(len(x), rows, columns, filters)


def max_pool(x: Array) -> Array:
    return sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max(axis=(-1, -2))


def random_layers(dimension: int, *, seed: int = 0) -> Layers:
    """Random weights of every layer, batch-norm statistics too."""
    network = PlainFaceNet(dimension, seed=seed)
    network.embed(np.zeros((1, 80, 80, 3), np.float32))  # the smallest that reaches the end
    return network.layers


def random_crops(n: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Crops of smooth coloured noise, each of another brightness; uint8 (n, 160, 160, 3)."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 255, (n, 10, 10, 3)) * random.uniform(0.3, 1, (n, 1, 1, 1))
    fine = np.kron(coarse, np.ones((1, 16, 16, 1)))
    return np.clip(fine + random.normal(0, 10, fine.shape), 0, 255).astype(np.uint8)


def write_keras_2(path: Path, layers: Layers, *, suffix: str = ":0", group: str = "/") -> Path:
    """Write weights as Keras 2's ``save_weights`` does; ``group`` as ``save`` nests them."""
    with h5py.File(path, "w") as file:
        root = file.require_group(group)
        root.attrs["layer_names"] = [n.encode() for n in ("input_1", *layers)]
        root.create_group("input_1").attrs["weight_names"] = []
        for layer, arrays in layers.items():
            entry = root.create_group(layer)
            entry.attrs["weight_names"] = [f"{layer}/{name}{suffix}".encode() for name in arrays]
            for name, values in arrays.items():
                entry.create_dataset(f"{layer}/{name}{suffix}", data=values)
    return path


def write_keras_3(path: Path, layers: Layers) -> Path:
    """Write weights as Keras 3's ``save_weights`` does."""
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        file.create_group("layers/dropout/vars")
        for group, (layer, arrays) in zip(_numbered(layers), layers.items(), strict=True):
            variables = file.create_group(f"layers/{group}/vars")
            variables.attrs["name"] = layer
            for i, values in enumerate(arrays.values()):
                variables.create_dataset(str(i), data=values)
    return path


def _numbered(layers: Layers) -> Iterator[str]:
    for i, layer in enumerate(layers):
        yield f"batch_normalization_{i}" if layer.endswith("_BatchNorm") else f"conv2d_{i}"
