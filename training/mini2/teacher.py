"""The teachers of `train.py`: ONNX files, in OpenVINO on processors and in PyTorch on GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from network import PLAN, SIDE
from onnx_on_torch import traced

EMBEDDING = "head"
MIXING = {(2, 3): 1, (3, 9): 1}
"""Blocks with attention, and the number of the addition after it in the graph."""


def maps_of_edgeface() -> dict[str, str]:
    """The tensors of EdgeFace-XS that the parts of `mini2` learn, by the part's name.

    ``mixed_2_3`` and the like are what the attention of a block gives.
    """
    tensors = {"stem": "/stem/stem.1/Transpose_1_output_0"}
    for stage, plan in enumerate(PLAN, 1):
        folder = f"/stages/stages.{stage - 1}"
        if stage > 1:
            tensors[f"reduce_{stage}"] = f"{folder}/downsample/downsample.1/Conv_output_0"
        for block in range(1, plan.blocks + 1):
            added = f"{folder}/blocks/blocks.{block - 1}/Add"
            number = MIXING.get((stage, block))
            if number is None:
                tensors[f"stage_{stage}_{block}"] = f"{added}_output_0"
            else:
                tensors[f"mixed_{stage}_{block}"] = f"{added}_{number}_output_0"
                tensors[f"stage_{stage}_{block}"] = f"{added}_{number + 1}_output_0"
    return tensors


class Teacher:
    """One network.

    Args:
        path: the ONNX file.
        batch: crops at a time.
        device: ``"cuda"`` or ``"cpu"``.
        tensors: names of more values of the graph, by the names that they get.
        half: run in bfloat16.
    """

    def __init__(
        self,
        path: Path,
        batch: int,
        device: str,
        tensors: Mapping[str, str] | None = None,
        half: bool = True,
    ) -> None:
        self._names = [EMBEDDING, *(tensors or {})]
        wanted = list((tensors or {}).values())
        self._request = None
        if device == "cuda":
            kind = torch.bfloat16 if half else torch.float32
            self._example = torch.zeros(batch, 3, SIDE, SIDE, device=device, dtype=kind)
            self._network = torch.compile(traced(path, self._example, wanted))
            return
        from face2vec.runtime.packages import import_openvino

        core = import_openvino().Core()
        model = core.read_model(path)
        if wanted:
            model.add_outputs(wanted)
        model.reshape([batch, 3, SIDE, SIDE])
        how = {"INFERENCE_PRECISION_HINT": "bf16" if half else "f32", "NUM_STREAMS": 1}
        self._request = core.compile_model(model, "CPU", how).create_infer_request()

    def __call__(self, crops: torch.Tensor) -> dict[str, torch.Tensor]:
        """Embeddings and maps of crops (n, 3, 112, 112), −1…1.

        Returns:
            float32 by name: embeddings (n, d), maps (n, height, width, channels), and what an
            attention gives, (n, height · width, channels).
        """
        if self._request is None:
            made = self._network(crops.to(self._example.dtype))
        else:
            given = [np.ascontiguousarray(crops.numpy())]
            answers = self._request.infer(given, share_outputs=True).values()
            made = [torch.from_numpy(one.copy()) for one in answers]
        return {
            name: (one.permute(0, 2, 3, 1) if one.ndim == 4 else one).float().contiguous()
            for name, one in zip(self._names, made, strict=True)
        }

    def embeddings(self, crops: torch.Tensor) -> torch.Tensor:
        """Embeddings of crops and their mirror images together, of unit length."""
        both = [F.normalize(self(one)[EMBEDDING]) for one in (crops, crops.flip(3))]
        return F.normalize(both[0] + both[1])
