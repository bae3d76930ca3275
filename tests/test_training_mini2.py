"""The tools in ``training/mini2``, which train a model."""

from __future__ import annotations

import csv
import io
import os
import re
import statistics
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from helpers import needs, run_python
from PIL import Image

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / "training" / "mini2"


def test_faces_are_packed_without_those_that_are_held_out(tmp_path: Path) -> None:
    archive, table = tmp_path / "faces.tar", tmp_path / "faces.csv"
    colours = {}
    with tarfile.open(archive, "w") as tar, table.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("file", "set"))
        for number in range(40):
            name, colour = f"{number}.png", (number * 6, 255 - number * 6, 30)
            rows.writerow((name, ("utk", "fm")[number % 2]))
            data = io.BytesIO()
            Image.new("RGB", (112, 112), colour).save(data, "PNG")
            member = tarfile.TarInfo(name)
            member.size = len(data.getvalue())
            tar.addfile(member, io.BytesIO(data.getvalue()))
            colours[number] = colour
    packed, work = tmp_path / "packed", tmp_path / "work"
    said = run_python(TOOLS / "faces.py", "pack", packed, archive, table)
    held = {0, 10, 20, 30}  # of the set utk, rows divisible by 5
    assert said == "36 faces to learn from, 4 left out\n"
    archives = sorted(packed.iterdir())
    assert [one.name for one in archives] == ["faces-1.npz", "faces-2.npz", "held.npz"]
    run_python(TOOLS / "faces.py", "unpack", *archives, work)

    def unpacked(name: str) -> set[tuple[int, ...]]:
        crops = np.load(work / f"{name}.npy")
        assert crops.shape[1:] == (3, 112, 112)
        assert (crops == crops[:, :, :1, :1]).all()
        return set(map(tuple, crops[:, :, 0, 0].tolist()))

    assert unpacked("held") == {colours[number] for number in held}
    parts = unpacked("faces-1"), unpacked("faces-2")
    assert [len(part) for part in parts] == [18, 18]
    assert parts[0] | parts[1] == {colours[number] for number in set(colours) - held}


def run_tools(script: str, folder: Path) -> str:
    """Run a script that may import the tools; returns what it writes."""
    start = "import sys\nfrom pathlib import Path\nfolder = Path(sys.argv[1])\n"
    done = subprocess.run(
        [sys.executable, "-c", start + script, str(folder)], capture_output=True, text=True,
        check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join((str(TOOLS), str(ROOT)))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


EXPORTED = """
import numpy as np, onnxruntime, torch
import export, train
from student import Student
torch.manual_seed(1)
student = Student().eval()
for one in student.parameters():  # biases that are not 0, layers that change something
    one.data += torch.randn_like(one) * 0.05
np.savez(folder / "weights.npz", **{n: v.numpy() for n, v in student.state_dict().items()})
crops = torch.rand(3, 3, 112, 112) * 2 - 1
with torch.no_grad():
    wanted = student(crops).numpy()
sys.argv = ["export.py", str(folder / "weights.npz"), "--out", str(folder / "mini2.onnx")]
export.main()
session = onnxruntime.InferenceSession(folder / "mini2.onnx")
(given,) = session.run(None, {"crops": crops.permute(0, 2, 3, 1).numpy()})
assert given.shape == wanted.shape == (3, 512)
apart = np.abs(given - wanted).max() / np.abs(wanted).max()
assert apart < 0.01, apart  # weights in half precision
block = student.parts["stage_1_1"]
block.each.kernel.data *= 1000
block.each.bias.data *= 1000
block.rescale()
assert abs(float(block.each.kernel.square().sum((1, 2, 3)).mean()) - 1) < 1e-4
with torch.no_grad():
    assert np.abs(student(crops).numpy() - wanted).max() / np.abs(wanted).max() < 1e-4
assert (folder / "mini2.onnx").stat().st_size < 6_000_000
again = Student().eval()
train.load_model(again, folder / "mini2.onnx")
with torch.no_grad():
    assert np.abs(again(crops).numpy() - given).max() / np.abs(wanted).max() < 1e-4
"""


@pytest.mark.keras
def test_exported_network_is_the_one_that_was_trained(tmp_path: Path) -> None:
    needs("torch", "torch")
    run_tools(EXPORTED, tmp_path)


CROPS = """
import numpy as np, torch
from crops import Crops, standardized
rows, columns = np.indices((112, 112))
faces = np.stack([[rows * 2, columns * 2, np.full_like(rows, 20 * n)] for n in range(96)])
np.save(folder / "faces-1.npy", faces[:64].astype(np.uint8))
np.save(folder / "faces-2.npy", faces[64:].astype(np.uint8))
torch.manual_seed(0)
np.random.seed(0)
crops = Crops(32, "cpu", folder)
epoch = [crops.make(0.0) for _ in range(3)]
assert sorted(torch.cat([taken for taken, _ in epoch]).tolist()) == list(range(96))
taken, shown = epoch[0]
assert shown.shape == (32, 3, 112, 112) and float(shown.abs().max()) <= 1
# Hardly changed, or mirrored: most crops look like their faces.
def alike(a, b):
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (a, b))
    return torch.nn.functional.cosine_similarity(a, b)
clean = standardized(crops.faces[taken])
both = torch.maximum(alike(clean, shown), alike(clean, shown.flip(3)))
assert float(both.median()) > 0.95, both.median()
mirrored = alike(clean, shown) < alike(clean, shown.flip(3))
assert 4 < int(mirrored.sum()) < 28
torch.manual_seed(0)
np.random.seed(0)
again = Crops(32, "cpu", folder).make(0.0)
assert torch.equal(again[0], taken) and torch.equal(again[1], shown)
"""


@pytest.mark.keras
def test_crops_show_the_faces_of_their_rows(tmp_path: Path) -> None:
    needs("torch", "torch")
    run_tools(CROPS, tmp_path)


TRAINED = """
import numpy as np, onnx, torch
from onnx import helper
import export, teacher, train
from network import SIDE
from parts import Maps, fit, fits
from student import Student

# A teacher: another network of this kind, whose maps have the names of EdgeFace's.
torch.manual_seed(2)
other = Student()
for name, one in other.named_parameters():
    one.data *= 30 if name.endswith(("narrow.weight", "after.weight")) else 1
weights = {n: v.numpy() for n, v in other.state_dict().items()}
model = export.Writer(weights).written()
graph = model.graph
graph.input[0].CopyFrom(
    helper.make_tensor_value_info("faces", onnx.TensorProto.FLOAT, ["n", 3, SIDE, SIDE]))
graph.node.insert(0, helper.make_node("Transpose", ["faces"], ["crops"], perm=[0, 2, 3, 1]))
nodes = list(graph.node)
for name, shape in (("flat", [0, 0, -1]), ("square_2", [0, 0, 14, 14]), ("square_3", [0, 0, 7, 7])):
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape, np.int64), name))
for part, tensor in teacher.maps_of_edgeface().items():
    made = f"{part}.patches" if part.startswith("reduce") else part.replace("stem", "stem.norm")
    again = tensor + "_again"
    if part.startswith("mixed"):  # EdgeFace gives these as (n, places, channels)
        made = part.replace("mixed", "stage") + ".mixed"
        square = "square_" + part.split("_")[1]
        added = [helper.make_node("Reshape", [made, "flat"], [tensor + "_flat"]),
                 helper.make_node("Transpose", [tensor + "_flat"], [tensor], perm=[0, 2, 1]),
                 helper.make_node("Transpose", [tensor], [tensor + "_back"], perm=[0, 2, 1]),
                 helper.make_node("Reshape", [tensor + "_back", square], [again])]
    else:
        added = [helper.make_node("Identity", [made], [tensor]),
                 helper.make_node("Identity", [tensor], [again])]
    place = next(n for n, one in enumerate(nodes) if made in one.output) + 1
    for later in nodes[place:]:
        later.input[:] = [again if one == made else one for one in later.input]
    nodes[place:place] = added
del graph.node[:]
graph.node.extend(nodes)
onnx.save(model, folder / "teacher.onnx")
rng = np.random.default_rng(0)
small = torch.from_numpy(rng.uniform(0, 255, (72, 3, 7, 7)).astype(np.float32))
faces = torch.nn.functional.interpolate(small, size=SIDE, mode="bicubic").clamp(0, 255)
np.save(folder / "faces-1.npy", faces[:64].byte().numpy())
np.save(folder / "held.npy", faces[64:].byte().numpy())

def run():
    sys.argv = ["train.py", str(folder), "--teacher", str(folder / "teacher.onnx"),
                "--batch", "8", "--kept", "64", "--every", "0", "--device", "cpu",
                "--steps", "72"]
    train.main()

train.PHASES = {"parts": 5 / 6, "whole": 1 / 6}

class Stopped(Exception):
    pass

save = train.Training.save

def save_and_stop(self):
    save(self)
    if self.spent == (11 if stop_in == 0 else 0) and self.phase == stop_in:
        raise Stopped

train.Training.save = save_and_stop
for stop_in in (0, 1):
    try:
        run()
    except Stopped:
        print("stopped")
train.Training.save = save
run()
assert (folder / "out" / "done").exists()
maps = Maps(folder / "out" / "maps", None, None)
for one in fits(Student()):
    print("untrained:", one.name, fit(one, maps, lambda steps: 1.0, 1.0, "cpu"))
"""


@pytest.mark.keras
def test_training_learns_parts_then_the_whole_and_goes_on_after_a_stop(tmp_path: Path) -> None:
    needs("torch", "torch")
    said = run_tools(TRAINED, tmp_path)
    *parts, whole = said.split("stopped\n")
    fitted = [re.findall(r"parts: (\w+) leaves (\d+\.\d+)", one) for one in parts]
    untrained = dict(re.findall(r"untrained: (\w+) (\d+\.\d+)", whole))
    assert [len(some) for some in fitted] == [11, 13]
    assert [name for name, _ in fitted[0] + fitted[1]] == list(untrained)
    left = {name: float(share) / float(untrained[name]) for name, share in fitted[0] + fitted[1]}
    assert statistics.median(left.values()) < 0.9, left
    assert "parts" not in whole
    assert "whole ends: step 12" in whole
    cosines = [float(one) for one in re.findall(r"cosine (-?\d\.\d+)", said)]
    assert cosines[-1] > cosines[0]
