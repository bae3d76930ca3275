"""ONNX Runtime and OpenVINO are imported here, with their telemetry off.

Both report to their makers by default: ``import openvino`` sends an event, and onnxruntime 1.29
and later also sends names and hashes of the models that it loads.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def import_onnxruntime() -> Any:
    """The module ``onnxruntime``.

    Its telemetry starts with the import, so one that the program has imported before has reported
    that; it reports no more from here on.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    module = importlib.import_module("onnxruntime")
    module.disable_telemetry_events()
    return module


def import_openvino() -> Any:
    """The module ``openvino``, which works without the package that sends its events."""
    if "openvino" in sys.modules:
        return importlib.import_module("openvino")
    name = "openvino_telemetry"
    loaded = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment] # the import of it fails
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[name]
        if loaded is not None:
            sys.modules[name] = loaded
