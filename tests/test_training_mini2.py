"""The tools in ``training/mini2``, which train a model on a GPU."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from helpers import needs, run_python
from PIL import Image

TOOLS = Path(__file__).parent.parent / "training" / "mini2"


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


EXPORTED = """
import sys
from pathlib import Path
import numpy as np, onnxruntime, torch
sys.path.insert(0, str(Path("training/mini2").resolve()))
import export, train
from student import Student
folder = Path(sys.argv[1])
torch.manual_seed(1)
student = Student().eval()
for name, values in (*student.named_parameters(), *student.named_buffers()):
    last = name.rsplit(".", 1)[1]
    if last in ("gamma", "variance"):  # small where blocks add up
        values.data = (torch.rand_like(values) + 0.5) * (0.2 if last == "gamma" else 1)
    if last in ("beta", "mean"):
        values.data = torch.randn_like(values) * 0.1
train.save(student, torch.eye(4), folder)
crops = torch.rand(3, 3, 112, 112) * 2 - 1
with torch.no_grad():
    wanted = student(crops).numpy()
for stored, most in (("fp32", 1e-4), ("int8", 0.1)):
    sys.argv = ["export.py", *map(str, sorted(folder.glob("weights-*"))),
                "--out", str(folder / "mini2.onnx"), "--stored", stored]
    export.main()
    session = onnxruntime.InferenceSession(folder / "mini2.onnx")
    (given,) = session.run(None, {"crops": crops.permute(0, 2, 3, 1).numpy()})
    apart = np.abs(given - wanted).max() / np.abs(wanted).max()
    assert apart < most, (stored, apart)
assert (folder / "mini2.onnx").stat().st_size < 6_000_000
"""


@pytest.mark.keras
def test_exported_network_is_the_one_that_was_trained(tmp_path: Path) -> None:
    needs("torch", "keras", "torch")
    done = subprocess.run(
        [sys.executable, "-c", EXPORTED, str(tmp_path)], capture_output=True, text=True,
        check=False, env=os.environ | {"KERAS_BACKEND": "torch"}, cwd=TOOLS.parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


LEARNS = """
import sys
from pathlib import Path
import numpy as np, torch
sys.path.insert(0, str(Path("training/mini2").resolve()))
from crops import Crops
folder = Path(sys.argv[1])
rows, columns = np.indices((112, 112))
faces = np.stack([[rows * 2, columns * 2, np.full_like(rows, 20 * n)] for n in range(6)])
np.save(folder / "faces-1.npy", faces.astype(np.uint8))
torch.manual_seed(0)
crops = Crops(64, "cpu", folder)
crops.look()
assert crops.count == 6
seen, shown = crops.make(0.0)
assert seen.shape == shown.shape == (64, 3, 112, 112)
assert float(seen.abs().max()) <= 1 and float(shown.abs().max()) <= 1
# The same face: as it is, or mirrored, what the two see is alike for most crops.
def alike(a, b):
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (a, b))
    return torch.nn.functional.cosine_similarity(a, b)
both = torch.maximum(alike(seen, shown), alike(seen, shown.flip(3)))
assert float(both.median()) > 0.95, both.median()
np.save(folder / "faces-2.npy", faces[:2].astype(np.uint8))
crops.look()
assert crops.count == 8
torch.manual_seed(0)
np.random.seed(0)
again = crops.make()[0]
torch.manual_seed(0)
np.random.seed(0)
assert torch.equal(again, crops.make()[0])
"""


@pytest.mark.keras
def test_teachers_and_student_see_the_same_face(tmp_path: Path) -> None:
    needs("torch", "torch")
    done = subprocess.run(
        [sys.executable, "-c", LEARNS, str(tmp_path)], capture_output=True, text=True,
        check=False, cwd=TOOLS.parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
