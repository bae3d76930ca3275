from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face2vec import detector_processes
from face2vec.cascade import Detector, DetectorSettings
from face2vec.detector_processes import DetectorProcesses
from face2vec.records import Face
from face2vec.runtime import Runtime

SETTINGS = DetectorSettings(min_face_size=30)
Values = list[list[tuple[object, ...]]]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(SETTINGS, Runtime("onnxruntime"))


@pytest.fixture(scope="module")
def images(astronaut: Image.Image, hopper: Image.Image) -> list[np.ndarray]:
    return [
        np.asarray(astronaut),
        np.zeros((1, 1, 3), np.uint8),
        np.asarray(hopper)[:, ::-1],  # not in one piece
        np.asarray(astronaut.resize((301, 157))),
    ]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector_processes, "START_AFTER", 0.0)


def values(found: list[list[Face]]) -> Values:
    return [[(face.box, face.landmarks, face.confidence) for face in faces] for faces in found]


def refused(_: object) -> list[list[Face]]:
    raise AssertionError("this was not to be searched in this process")


def living(processes: DetectorProcesses) -> list[int]:
    return [process.pid for process in processes._processes if process.poll() is None]


def ended(pid: int) -> bool:
    """Whether a process that is not this one's child has ended, within a minute."""
    stat = Path(f"/proc/{pid}/stat")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (
            not stat.exists()
            or stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
        ):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.usefixtures("at_once")
def test_faces_from_processes_are_those_of_the_detector_bit_for_bit(
    detector: Detector, images: list[np.ndarray]
) -> None:
    wanted = values(detector.detect(images))
    assert [len(faces) for faces in wanted] == [1, 0, 1, 1]
    with DetectorProcesses(SETTINGS, 2, refused) as processes, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(processes.detect, [images, images[:1], [], images] * 3))
        assert len(living(processes)) == 2
    assert [values(one) for one in found] == [wanted, wanted[:1], [], wanted] * 3


def test_processes_start_when_a_stream_has_gone_on_for_a_while(
    detector: Detector, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(detector_processes.time, "monotonic", lambda: now)
    with DetectorProcesses(SETTINGS, 2, detector.detect) as processes:
        now += 1000  # that nobody detected is no work
        for passed in (0.0, 0.4, 0.4):
            now += passed
            processes.detect(images[:1])
            assert living(processes) == []
        now += 0.4
        processes.detect(images[:1])
        pids = living(processes)
        assert len(pids) == 2
        now += 1000
        processes.detect(images[:1])
        assert living(processes) == pids
    assert living(processes) == []


@pytest.mark.usefixtures("at_once")
def test_one_thread_needs_no_process(detector: Detector, images: list[np.ndarray]) -> None:
    with DetectorProcesses(SETTINGS, 1, detector.detect) as processes:
        processes.detect(images[:1])
        assert living(processes) == []


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("name", "value"), [("frozen", True), ("executable", "")])
def test_program_that_python_is_frozen_into_is_not_started_again(
    detector: Detector, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, name: str,
    value: object,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, name, value, raising=False)
    with DetectorProcesses(SETTINGS, 2, detector.detect) as processes:
        processes.detect(images[:1])
        assert living(processes) == []


@pytest.mark.usefixtures("at_once")
def test_interpreter_that_cannot_be_started_is_done_without(
    detector: Detector, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with DetectorProcesses(SETTINGS, 2, detector.detect) as processes:
        for _ in range(2):
            found = values(processes.detect(images))
    assert found == values(detector.detect(images))
    assert [r.message[:40] for r in caplog.records] == ["no more detection processes than 0: [Err"]


@pytest.mark.usefixtures("at_once")
def test_processes_that_die_cost_no_photo(
    detector: Detector, images: list[np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    wanted = values(detector.detect(images))
    with DetectorProcesses(SETTINGS, 2, detector.detect) as processes:
        assert values(processes.detect(images)) == wanted
        with caplog.at_level(logging.WARNING, "face2vec"):
            for pid in living(processes):
                os.kill(pid, signal.SIGKILL)
            with ThreadPoolExecutor(3) as pool:
                for found in pool.map(processes.detect, [images] * 9):
                    assert values(found) == wanted
    said = [record.message for record in caplog.records]
    assert said == ["a detection process has died (exit status -9); going on without"] * 2


@pytest.mark.usefixtures("at_once")
def test_error_of_a_detection_is_raised_where_it_was_asked_for(images: list[np.ndarray]) -> None:
    with DetectorProcesses(SETTINGS, 2, refused) as processes:
        with pytest.raises(ValueError, match="axes don't match"):
            processes.detect([np.zeros((40, 40), np.uint8)])
        assert len(processes.detect(images[:1])[0]) == 1


@pytest.mark.usefixtures("at_once")
def test_ctrl_c_is_not_for_the_processes(images: list[np.ndarray]) -> None:
    with DetectorProcesses(SETTINGS, 2, refused) as processes:
        processes.detect(images[:1])
        assert {os.getpgid(pid) for pid in living(processes)}.isdisjoint({os.getpgid(0)})


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_the_one_that_started_them(how: signal.Signals) -> None:
    program = (
        "import numpy as np, sys, time\n"
        "from face2vec import detector_processes as d\n"
        "d.START_AFTER = 0\n"
        "processes = d.DetectorProcesses(d.DetectorSettings(), 2, None)\n"
        "processes.detect([np.zeros((9, 9, 3), np.uint8)])\n"
        "print(*(p.pid for p in processes._processes), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        pids = [int(pid) for pid in started.stdout.readline().split()]
        started.send_signal(how)
    assert len(pids) == 2
    assert all(map(ended, pids))
