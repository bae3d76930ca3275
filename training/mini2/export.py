"""Makes a model of the weights that `train.py` wrote.

    python training/mini2/export.py WEIGHTS-0.npz WEIGHTS-1.npz --out mini2.onnx

Needs face2vec[train]. With ``--faces FACES.npy``, see `faces.py`, the means and variances of batch
normalisation are first measured again on clean crops.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from face2vec.cli.train import choose_backend
from face2vec.models.description import FIVE_POINTS, ModelDescription

BATCH = 64
NORMS = {"gamma": "gamma", "beta": "beta", "mean": "moving_mean", "variance": "moving_variance"}


def place_of(name: str) -> tuple[str, str]:
    """The Keras layer and its variable that a number of the student belongs to."""
    path, kind = name.rsplit(".", 1)
    path = re.sub(r"^stages\.(\d)\.(\d)", lambda m: f"stage_{int(m[1]) + 1}_{int(m[2]) + 1}", path)
    path = re.sub(r"^reduce\.(\d)", lambda m: f"reduce_{int(m[1]) + 2}", path)
    path = path.replace("places", "weigh_places")
    owner, _, last = path.rpartition(".")
    if last == "norm":
        block = re.fullmatch(r"stage_\d_\d", owner)
        owner = f"{owner}.narrow" if block else owner
        return f"{owner.replace('.', '_')}_norm", NORMS[kind]
    variable = "bias" if kind == "bias" else "kernel"
    layer = path.replace(".", "_")
    if last in ("squeeze", "channels"):
        return f"{owner}_weighed_{last}", variable
    if path in ("weigh_places", "embedding"):
        return path, variable
    return f"{layer}_conv", variable


def as_keras(values: Any, shape: tuple[int, ...]) -> Any:
    """A kernel in Keras' order of axes."""
    if values.ndim == 4:
        return values.transpose(2, 3, 1, 0)
    if values.ndim == 3:  # depthwise
        return values.transpose(1, 2, 0)[..., None]
    return values.T.reshape(shape) if values.ndim == 2 else values


def normalized_again(network: Any, crops: Any) -> None:
    """Measure the means and variances of batch normalisation on clean crops and their mirrors."""
    import keras

    from face2vec.training.trainer import standardized

    norms = [one for one in network.layers if isinstance(one, keras.layers.BatchNormalization)]
    # Layer by layer, because each normalisation changes what the next one is given.
    pixels = standardized(np.concatenate([crops, crops[:, :, ::-1]]))
    for norm in norms:
        before = keras.Model(network.input, norm.input)
        total, squares, count = 0.0, 0.0, 0
        for start in range(0, len(pixels), BATCH):
            part = keras.ops.convert_to_numpy(before(pixels[start : start + BATCH]))
            part = part.reshape(-1, part.shape[-1]).astype(np.float64)
            total, squares = total + part.sum(0), squares + (part**2).sum(0)
            count += len(part)
        mean = total / count
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(squares / count - mean**2)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--faces", type=Path)
    parser.add_argument("--stored", choices=("fp32", "fp16", "int8"), default="int8")
    given = parser.parse_args()
    choose_backend()
    from face2vec.training import networks
    from face2vec.training.export import export

    network = networks.build("mini2")
    left = {(layer.name, one.name) for layer in network.layers for one in layer.weights}
    for path in given.weights:
        with np.load(path) as stored:
            for name in stored.files:
                layer, variable = place_of(name)
                target = getattr(network.get_layer(layer), variable)
                target.assign(as_keras(stored[name], tuple(target.shape)))
                left.remove((layer, variable))
    if left:
        raise SystemExit(f"no weights for {', '.join('.'.join(one) for one in sorted(left))}")
    if given.faces is not None:
        normalized_again(network, np.load(given.faces).transpose(0, 2, 3, 1))
    description = ModelDescription(
        "mini2", network.output_shape[-1], network.input_shape[1], "landmarks", template=FIVE_POINTS
    )
    export(network, given.out, description, given.stored)
    sys.stdout.write(f"{given.out}: {given.out.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
