"""The runtimes report nothing to their makers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import needs

import face2vec

USE = """
import sys
from pathlib import Path
import numpy as np
from face2vec.runtime.select import Runtime
network = Runtime(sys.argv[1]).load(Path(sys.argv[2]))
network.run({network.input_name: np.zeros((2, 3, 112, 112), np.float32)})
assert "openvino_telemetry" not in sys.modules
"""


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_runtime_leaves_no_identifier(name: str, tiny_model: Path, tmp_path: Path) -> None:
    if name == "openvino":
        needs("openvino", "openvino")
    # Telemetry begins with an identifier in the home folder: ~/.cache/Microsoft, ~/intel.
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment |= {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONPATH": str(Path(face2vec.__file__).parents[1]),
    }
    subprocess.run([sys.executable, "-c", USE, name, str(tiny_model)], env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_openvino_is_the_module_that_the_program_has_already_imported() -> None:
    needs("openvino", "openvino")
    from face2vec.runtime.packages import import_openvino

    assert import_openvino() is import_openvino() is sys.modules["openvino"]
    assert sys.modules.get("openvino_telemetry", ...) is not None
