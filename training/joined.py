"""Join two networks that read the same crops to one, whose embeddings are shorter than both.

    python training/joined.py ONE.onnx OTHER.onnx --faces FACES.tar --table FACES.csv … \
        --dimension 512 --out JOINED.onnx

The embeddings of both, each of unit length, are put behind each other and projected on the axes
with the largest eigenvalues of their second moments over the training faces. The crop is that of
OTHER; ONE gets it in its own size.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from face2vec.encoding.embed import Embedder
from face2vec.files import written_whole
from face2vec.models import load_model
from face2vec.runtime.select import choose_runtime
from face2vec.training.faces import load_faces
from face2vec.training.teachers import resized

OPSET, IR = 17, 8


def renamed(path: Path, prefix: str) -> onnx.ModelProto:
    """A network whose names begin with a prefix."""
    return compose.add_prefix(onnx.load(path), prefix)


def joined(one: Path, other: Path, axes: np.ndarray, size: int, side: int) -> onnx.ModelProto:
    """The graph of both networks.

    Args:
        one: network that reads crops of ``size`` pixels.
        other: network that reads crops of ``side`` pixels.
        axes: float32 (d, dimension), projection of both embeddings behind each other.
        size: see ``one``.
        side: see ``other``.
    """
    first, second = renamed(one, "one/").graph, renamed(other, "other/").graph
    constants = {
        "factors": np.array([1, 1, size / side, size / side], np.float32),
        "axes": axes.astype(np.float16),
    }
    nodes = [
        helper.make_node("Transpose", ["crops"], ["upright"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "Resize", ["upright", "", "factors"], ["small"], mode="linear",
            coordinate_transformation_mode="half_pixel",
        ),
        helper.make_node("Transpose", ["small"], ["one/crops"], perm=[0, 2, 3, 1]),
        helper.make_node("Identity", ["crops"], ["other/crops"]),
        *first.node,
        *second.node,
        helper.make_node("LpNormalization", ["one/embeddings"], ["one/unit"], axis=1, p=2),
        helper.make_node("LpNormalization", ["other/embeddings"], ["other/unit"], axis=1, p=2),
        helper.make_node("Concat", ["one/unit", "other/unit"], ["both"], axis=1),
        helper.make_node("Cast", ["axes"], ["axes/float"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["both", "axes/float"], ["embeddings"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "joined",
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["faces", side, side, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT,
                                       ["faces", axes.shape[1]])],
        [*first.initializer, *second.initializer,
         *(numpy_helper.from_array(value, name) for name, value in constants.items())],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("one", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--faces", action="append", required=True)
    parser.add_argument("--table", action="append", required=True)
    parser.add_argument("--every", type=int, default=1, help="use one in so many faces")
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    models = [load_model(str(given.one)), load_model(str(given.other))]
    sizes = [model.description.input_size for model in models]
    networks = [Embedder(model, choose_runtime()) for model in models]
    moments: np.ndarray | float = 0.0
    for source, listed in zip(given.faces, given.table, strict=True):
        faces = load_faces(source, models[1].description, table=listed, aligned=True)
        kept = np.arange(len(faces.crops)) if faces.held_out is None else np.flatnonzero(
            ~faces.held_out
        )  # fmt: skip
        crops = faces.crops[kept[:: given.every]]
        both = np.hstack(
            [embed(resized(crops, size)) for embed, size in zip(networks, sizes, strict=True)]
        ).astype(np.float64)
        moments = moments + both.T @ both
    axes = np.linalg.eigh(moments)[1][:, ::-1][:, : given.dimension]
    axes *= np.where(axes.sum(axis=0) < 0, -1.0, 1.0)  # a sign that does not depend on LAPACK
    files = [Path(model.path) for model in models]
    model = joined(*files, axes.astype(np.float32), *sizes)
    with written_whole(given.out) as stream:
        stream.write(model.SerializeToString())
    described = replace(
        models[1].description, key=given.out.stem, dimension=given.dimension, sha256=None
    )
    given.out.with_suffix(".json").write_text(described.to_json() + "\n", encoding="utf-8")
    sys.stdout.write(f"{given.out}: {given.out.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
