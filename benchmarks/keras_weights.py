"""FaceNet weights with random values, as keras-facenet's own network holds them.

For timing only: the speed of a network does not depend on what it has learnt.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py


def write_keras_2(model: Any, path: Path, dimension: int) -> Path:
    """Write a Keras model's weights in the layout of keras-facenet's files, and a description."""
    with h5py.File(path, "w") as file:
        layers = [layer for layer in model.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0".encode() for weight in layer.weights]
            group.attrs["weight_names"] = names
            for name, weight in zip(names, layer.weights, strict=True):
                group.create_dataset(name.decode(), data=weight.numpy())
    description = {
        "key": "random-inception-resnet-v1",
        "dimension": dimension,
        "input_size": 160,
        "alignment": "margin",
        "margin": 44,
        "margin_size": 182,
    }
    path.with_suffix(".json").write_text(json.dumps(description), encoding="utf-8")
    return path


def random_facenet(dimension: int = 512) -> Any:
    """keras_facenet.FaceNet with random weights, without its download."""
    import keras
    from keras_facenet import FaceNet
    from keras_facenet.inception_resnet_v1 import InceptionResNetV1

    keras.utils.set_random_seed(0)
    facenet = FaceNet.__new__(FaceNet)
    facenet.metadata = {"image_size": 160, "fixed_image_standardization": True}
    facenet.model = InceptionResNetV1(classes=dimension)
    return facenet
