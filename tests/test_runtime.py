from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from helpers import Started

import face2vec
from face2vec.detection.mtcnn import DetectorSettings
from face2vec.encoding.encoder import Encoder
from face2vec.errors import MissingExtraError, ModelError, RuntimeUnavailableError, SettingsError
from face2vec.models import load_model
from face2vec.runtime.packages import import_onnxruntime, import_openvino
from face2vec.runtime.select import RUNTIMES, Runtime, choose_runtime, detector_runtime

onnxruntime, openvino = import_onnxruntime(), import_openvino()

SIDE = 112
CPU_ONLY = ["CPUExecutionProvider"]


@pytest.fixture
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def find_all_but_openvino(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "openvino" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_all_but_openvino)


def offer(monkeypatch: pytest.MonkeyPatch, *providers: str) -> None:
    """Let ONNX Runtime say that it has these providers, whatever this machine has."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*providers, *CPU_ONLY])


def crops(count: int, seed: int = 1) -> np.ndarray:
    shape = (count, 3, SIDE, SIDE)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def projected(tiny_model: Path, pixels: np.ndarray) -> np.ndarray:
    """What the tiny model of conftest computes, in plain numpy."""
    from onnx import load, numpy_helper

    weights = numpy_helper.to_array(load(tiny_model).graph.initializer[0])
    cells = pixels.reshape(len(pixels), 3, SIDE // 7, 7, SIDE // 7, 7).mean(axis=(3, 5))
    return np.asarray(cells.reshape(len(pixels), -1) @ weights)


# --- choosing -------------------------------------------------------------------------------


def test_auto_takes_openvino_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch)
    assert choose_runtime().name == "openvino"


@pytest.mark.usefixtures("no_openvino")
def test_auto_takes_onnxruntime_without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch)
    assert choose_runtime() == Runtime("onnxruntime", "f32", os.cpu_count() or 1)


def test_auto_takes_cuda_where_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("face2vec.runtime.select.has_cuda", lambda: True)
    assert choose_runtime(threads=3) == Runtime("cuda", "f32", 3)


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider':UserWarning")
@pytest.mark.usefixtures("no_openvino")
def test_auto_skips_cuda_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer(monkeypatch, "CUDAExecutionProvider")
    assert choose_runtime().name == "onnxruntime"


def test_onnxruntime_is_used_when_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer(monkeypatch, "CUDAExecutionProvider")
    assert choose_runtime("onnxruntime", 2) == Runtime("onnxruntime", "f32", 2)


def test_openvino_computes_in_bf16_only_where_the_processor_does() -> None:
    can = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert choose_runtime("openvino", 1).precision == ("bf16" if can else "f32")


def test_detector_runs_on_onnxruntime_in_full_precision() -> None:
    wanted = Runtime("onnxruntime", "f32", 5)
    assert detector_runtime(Runtime("openvino", "bf16", 5)) == wanted
    assert detector_runtime(Runtime("onnxruntime", "f32", 5)) == wanted
    assert detector_runtime(Runtime("cuda", "f32", 5)) == wanted


def test_describe_says_name_precision_and_threads() -> None:
    described = Runtime("openvino", "bf16", 2).describe()
    assert described == {"name": "openvino", "precision": "bf16", "threads": 2}


# --- refusing -------------------------------------------------------------------------------


def test_unknown_runtime_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="'tpu'") as caught:
        choose_runtime("tpu")
    assert all(name in str(caught.value) for name in RUNTIMES)


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_threads_than_one_are_refused(threads: int) -> None:
    with pytest.raises(SettingsError, match=f"threads must be at least 1, not {threads}"):
        choose_runtime(threads=threads)


def test_cuda_without_a_gpu_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer(monkeypatch)
    with pytest.raises(RuntimeUnavailableError, match="onnxruntime-gpu"):
        choose_runtime("cuda")


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider':UserWarning")
@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this ONNX Runtime has CUDA, the test is of one that cannot start it",
)
def test_cuda_that_cannot_be_started_is_an_error_and_no_fall_back(tiny_model: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="could not start"):
        Runtime("cuda").load(tiny_model)


@pytest.mark.usefixtures("no_openvino")
def test_openvino_without_the_package_has_the_pip_line() -> None:
    with pytest.raises(MissingExtraError) as caught:
        choose_runtime("openvino")
    assert "pip install 'face2vec[openvino]'" in str(caught.value)


def test_ir_file_without_openvino_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="runtime is onnxruntime") as caught:
        Runtime("onnxruntime").load(tmp_path / "model.xml")
    assert "runtime='openvino'" in str(caught.value)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("cut", [0, 100, -1000], ids=["empty", "100 bytes", "end missing"])
def test_broken_graph_is_one_line_that_names_the_file(
    name: str, cut: int, tiny_model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(tiny_model.read_bytes()[:cut])
    with pytest.raises(ModelError) as caught:
        Runtime(name).load(broken)
    assert str(caught.value).startswith(f"{broken} cannot be loaded by ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_graph_file_that_is_not_there_is_a_model_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx"):
        Runtime(name).load(tmp_path / "gone.onnx")


# --- running --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("from_bytes", [False, True], ids=["file", "bytes"])
def test_run_returns_the_outputs_of_the_graph(
    name: str, from_bytes: bool, tiny_model: Path
) -> None:
    network = Runtime(name).load(tiny_model.read_bytes() if from_bytes else tiny_model)
    assert network.input_name == "crops"
    for count in (1, 5, 2):
        pixels = crops(count, seed=count)
        (output,) = network.run({"crops": pixels})
        np.testing.assert_allclose(output, projected(tiny_model, pixels), atol=1e-4)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_run_in_many_threads_returns_each_its_own_outputs(name: str, tiny_model: Path) -> None:
    network = Runtime(name, threads=2).load(tiny_model)
    batches = [crops(3, seed) for seed in range(24)]
    alone = [network.run({"crops": batch})[0].copy() for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda batch: network.run({"crops": batch})[0].copy(), batches))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


FIRST_RUNS_AT_ONCE = """
import sys, threading
from pathlib import Path
import numpy as np
from face2vec.runtime.select import Runtime

sys.setswitchinterval(1e-6)
network = Runtime(sys.argv[1], threads=2).load(Path(sys.argv[2]))
crops = {network.input_name: np.zeros((1, 3, 112, 112), np.float32)}
together = threading.Barrier(4)
threads = [threading.Thread(target=lambda: (together.wait(), network.run(crops)), daemon=True)
           for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("all came back")
"""


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_first_runs_in_many_threads_do_not_deadlock(name: str, tiny_model: Path) -> None:
    command = [sys.executable, "-c", FIRST_RUNS_AT_ONCE, name, str(tiny_model)]
    environment = os.environ | {"PYTHONPATH": str(Path(face2vec.__file__).parents[1])}
    for _ in range(5):  # two threads that wait for each other do so about every other time
        with Started(command, env=environment, stdout=subprocess.PIPE, text=True) as done:
            assert done.communicate(timeout=120) == ("all came back\n", None)


INTERRUPTED_AFTERWARDS = """
import signal, sys
from pathlib import Path
from face2vec.runtime.select import Runtime, choose_runtime

first, second = (
    choose_runtime(sys.argv[1], threads).load(Path(sys.argv[2])) for threads in (1, 2)
)
del first
del second
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_ctrl_c_after_networks_have_gone_is_an_interrupt(name: str, tiny_model: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED_AFTERWARDS, name, str(tiny_model)]
    environment = os.environ | {"PYTHONPATH": str(Path(face2vec.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "interrupted\n")


def test_ir_file_of_a_fixed_batch_takes_any_batch(tiny_model: Path, tmp_path: Path) -> None:
    model = openvino.Core().read_model(tiny_model)
    model.reshape([1, 3, SIDE, SIDE])
    openvino.save_model(model, tmp_path / "tiny.xml", compress_to_fp16=False)
    network = Runtime("openvino").load(tmp_path / "tiny.xml")
    pixels = crops(4)
    np.testing.assert_allclose(
        network.run({network.input_name: pixels})[0], projected(tiny_model, pixels), atol=1e-4
    )


def test_openvino_and_onnxruntime_give_the_same_embeddings(tiny_model: Path) -> None:
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (40, SIDE, SIDE, 3), np.uint8)
    embeddings = {}
    for runtime in (Runtime("onnxruntime"), Runtime("openvino"), choose_runtime("openvino", 2)):
        encoder = Encoder(load_model(tiny_model), DetectorSettings(), runtime)
        embeddings[runtime] = encoder.embed(pixels)
        encoder.close()
    reference, full, own = embeddings.values()
    np.testing.assert_allclose(full, reference, atol=1e-4)
    # In the precision that this machine is given, which may be bf16.
    assert (own * reference).sum(axis=1).min() > 0.999


# --- what is computed on the way --------------------------------------------------------------


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_load_gives_tensors_inside_the_graph_after_its_outputs(tiny_model: Path, name: str) -> None:
    from onnx import load

    inner = load(tiny_model).graph.node[0].output[0]
    plain = Runtime(name).load(tiny_model)
    asked = Runtime(name).load(tiny_model, (inner,))
    pixels = {plain.input_name: crops(2)}
    (alone,) = plain.run(pixels)
    embeddings, first = asked.run(pixels)
    np.testing.assert_allclose(embeddings, alone, atol=1e-6)
    cells = crops(2).reshape(2, 3, SIDE // 7, 7, SIDE // 7, 7).mean(axis=(3, 5))
    np.testing.assert_allclose(first, cells, atol=1e-5)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_load_refuses_tensors_that_are_not_in_the_graph(tiny_model: Path, name: str) -> None:
    with pytest.raises(ModelError, match="no tensor 'nowhere'"):
        Runtime(name).load(tiny_model, ("nowhere",))


# --- graphs with a fixed batch size ---------------------------------------------------------


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch", [1, 4])
def test_graph_with_a_fixed_batch_size_takes_any_batch(
    name: str, batch: int, tiny_model: Path, tmp_path: Path
) -> None:
    import onnx

    graph = onnx.load(tiny_model)
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    path = tmp_path / "fixed.onnx"
    onnx.save(graph, path)
    fixed, free = (Runtime(name, "f32").load(one) for one in (path, tiny_model))
    for count in (1, 3, 4, 5):
        pixels = crops(count)
        (found,), (wanted,) = (net.run({"crops": pixels}) for net in (fixed, free))
        assert found.shape == (count, 64)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_graph_with_a_fixed_batch_size_still_refuses_other_crops(
    tiny_model: Path, tmp_path: Path
) -> None:
    import onnx

    graph = onnx.load(tiny_model)
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    path = tmp_path / "fixed.onnx"
    onnx.save(graph, path)
    network = Runtime("onnxruntime").load(path)
    with pytest.raises(ModelError, match="cannot be run on the input"):
        network.run({"crops": crops(3)[..., :-1]})
