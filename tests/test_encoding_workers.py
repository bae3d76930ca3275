"""`ExtractorProcesses`: results, start, end, and processes that die."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import Started, posix_only
from PIL import Image

from face2vec.detection.mtcnn import DetectorSettings
from face2vec.encoding import workers
from face2vec.encoding.extract import Extracted, Extractor, Wanted
from face2vec.encoding.workers import ExtractorProcesses
from face2vec.errors import SettingsError
from face2vec.models import load_model
from face2vec.photos.decode import open_photo
from face2vec.runtime.select import Runtime
from face2vec.types import Unopened

RUNTIME = Runtime("onnxruntime")

Values = list[tuple[object, ...]]


@pytest.fixture(scope="module")
def extractor(tiny_model: Path) -> Extractor:
    settings = DetectorSettings(min_face_size=30, max_side=700)
    return Extractor(settings, load_model(tiny_model).description, RUNTIME, 700_000)


@pytest.fixture(scope="module")
def wanted(faces_folder: Path, extractor: Extractor, astronaut: Image.Image) -> list[Wanted]:
    """Photos of every kind of source, with unreadable ones."""
    (face,) = extractor.extract([Wanted(open_photo(astronaut))])[0].faces
    return [
        Wanted(Unopened(str(faces_folder / "hopper.jpg"))),
        Wanted(Unopened((faces_folder / "nobody.jpg").read_bytes(), "nobody")),
        Wanted(Unopened(str(faces_folder / "broken.jpg"))),
        Wanted(Unopened(str(faces_folder / "gone.jpg"), "lost")),
        Wanted(open_photo(np.asarray(astronaut)[:, ::-1])),
        Wanted(extractor.open(astronaut.resize((760, 760)))),
        Wanted(Unopened(str(faces_folder / "both.jpg"))),
        Wanted(open_photo(astronaut), [face, face]),
        Wanted(open_photo(np.zeros((1, 1, 3), np.uint8))),
    ]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "START_AFTER", 0.0)


class Refusing(Extractor):
    """An extractor that must not be used in this process."""

    def extract(self, wanted: Sequence[Wanted]) -> list[Extracted]:
        raise AssertionError("extracted in this process")


@pytest.fixture
def refusing(extractor: Extractor) -> Extractor:
    return Refusing(*workers._arguments(extractor))


def values(extracted: list[Extracted]) -> Values:
    """The whole result, for bit-exact comparison."""
    return [
        (
            one.width,
            one.height,
            [(f.box, f.landmarks, f.confidence, f.quality) for f in one.faces],
            None if one.crops is None else (one.crops.shape, one.crops.tobytes()),
            one.error
            and (type(one.error), str(one.error), one.error.photo, one.error.reason,
                 one.error.detail),
        )
        for one in extracted
    ]  # fmt: skip


def living(processes: ExtractorProcesses) -> list[int]:
    return [process.pid for process in processes._processes if process.poll() is None]


def ended(pid: int) -> bool:
    """Whether a process that is not our child ends within a minute."""
    stat = Path(f"/proc/{pid}/stat")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if not stat.exists() or ") Z " in stat.read_text(encoding="utf-8"):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.usefixtures("at_once")
def test_processes_extract_bit_identical_results(
    extractor: Extractor, refusing: Extractor, wanted: list[Wanted]
) -> None:
    here = values(extractor.extract(wanted))
    assert [len(one.faces) for one in extractor.extract(wanted)] == [1, 0, 0, 0, 1, 1, 2, 2, 0]
    with ExtractorProcesses(refusing, 2) as processes, ThreadPoolExecutor(4) as pool:
        there = list(pool.map(processes.extract, [wanted, wanted[:1], [], wanted] * 3))
        assert len(living(processes)) == 2
    assert [values(one) for one in there] == [here, here[:1], [], here] * 3


def test_processes_start_after_a_stream_has_lasted_a_while(
    extractor: Extractor, wanted: list[Wanted], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(workers, "monotonic", lambda: now)
    with ExtractorProcesses(extractor, 2) as processes:
        now += 1000  # time before the first extraction does not count
        for passed in (0.0, 1.9, 1.9):
            now += passed
            processes.extract(wanted[:1])
            assert living(processes) == []
        now += 0.3
        processes.extract(wanted[:1])
        pids = living(processes)
        assert len(pids) == 2
        now += 1000
        processes.extract(wanted[:1])
        assert living(processes) == pids
    assert living(processes) == []


@pytest.mark.usefixtures("at_once")
def test_one_thread_starts_no_process(extractor: Extractor, wanted: list[Wanted]) -> None:
    with ExtractorProcesses(extractor, 1) as processes:
        processes.extract(wanted[:1])
        assert living(processes) == []


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("name", "value"), [("frozen", True), ("executable", "")])
def test_frozen_program_starts_no_process(
    extractor: Extractor,
    wanted: list[Wanted],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: object,
) -> None:
    monkeypatch.setattr(sys, name, value, raising=False)
    with ExtractorProcesses(extractor, 2) as processes:
        processes.extract(wanted[:1])
        assert living(processes) == []


@pytest.mark.usefixtures("at_once")
def test_missing_interpreter_falls_back_to_this_process(
    extractor: Extractor,
    wanted: list[Wanted],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    with ExtractorProcesses(extractor, 2) as processes:
        for _ in range(2):
            assert values(processes.extract(wanted)) == values(extractor.extract(wanted))
    messages = [record.message for record in caplog.records]
    assert len(messages) == 1
    assert messages[0].startswith("cannot start more than 0 extraction processes: ")


@pytest.mark.usefixtures("at_once")
@posix_only
def test_no_photo_is_lost_if_processes_die(
    extractor: Extractor, wanted: list[Wanted], caplog: pytest.LogCaptureFixture
) -> None:
    here = values(extractor.extract(wanted))
    with ExtractorProcesses(extractor, 2) as processes:
        assert values(processes.extract(wanted)) == here
        with caplog.at_level(logging.WARNING, "face2vec"):
            for pid in living(processes):
                os.kill(pid, signal.SIGKILL)
            with ThreadPoolExecutor(3) as pool:
                for there in pool.map(processes.extract, [wanted] * 9):
                    assert values(there) == here
    messages = [record.message for record in caplog.records]
    assert (
        messages == ["an extraction process has died (exit status -9); continuing without it"] * 2
    )


@pytest.mark.usefixtures("at_once")
def test_no_photo_is_lost_if_processes_fail_to_start(
    extractor: Extractor,
    wanted: list[Wanted],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(workers, "_SERVE", "raise SystemExit(7)")
    with ExtractorProcesses(extractor, 2) as processes:
        for _ in range(4):
            assert values(processes.extract(wanted)) == values(extractor.extract(wanted))
    messages = [record.message for record in caplog.records]
    assert messages == ["an extraction process has died (exit status 7); continuing without it"] * 2


@pytest.mark.usefixtures("at_once")
def test_photo_that_cannot_be_pickled_is_extracted_in_this_process(
    extractor: Extractor, refusing: Extractor, astronaut: Image.Image
) -> None:
    small = extractor.open(astronaut.resize((760, 760)))
    there = [Wanted(open_photo(astronaut)), Wanted(replace(small, scale=1, source=lambda: None))]
    here = [Wanted(replace(small, source=lambda: None), []), *there]
    with ExtractorProcesses(refusing, 2) as processes:
        found = values(processes.extract(there))
        assert [len(faces) for _, _, faces, *_ in found] == [1, 1]  # type: ignore[misc,arg-type]
        with pytest.raises(AssertionError, match="extracted in this process"):
            processes.extract(here)
        assert values(processes.extract(there)) == found
    with ExtractorProcesses(extractor, 2) as processes:
        assert values(processes.extract(here)) == values(extractor.extract(here))


@pytest.mark.usefixtures("at_once")
def test_other_errors_are_raised_by_the_calling_thread(
    refusing: Extractor, wanted: list[Wanted]
) -> None:
    with ExtractorProcesses(refusing, 2) as processes:
        for _ in range(3):
            with pytest.raises(SettingsError, match="a photo must be a path, bytes,"):
                processes.extract([*wanted, Wanted(Unopened(3.5))])  # type: ignore[arg-type]
        assert len(processes.extract(wanted)[0].faces) == 1
        assert len(living(processes)) == 2


@pytest.mark.usefixtures("at_once")
@posix_only
def test_ctrl_c_does_not_reach_the_processes(refusing: Extractor, wanted: list[Wanted]) -> None:
    with ExtractorProcesses(refusing, 2) as processes:
        processes.extract(wanted[:1])
        assert {os.getpgid(pid) for pid in living(processes)}.isdisjoint({os.getpgid(0)})


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("how", [getattr(signal, "SIGKILL", signal.SIGTERM), signal.SIGTERM])
def test_processes_end_with_their_parent(how: signal.Signals, tiny_model: Path) -> None:
    program = (
        "import sys, time\n"
        "from face2vec.encoding import extract as e, workers as p\n"
        "from face2vec.detection.mtcnn import DetectorSettings\n"
        "from face2vec.models import load_model\n"
        "from face2vec.runtime.select import Runtime\n"
        "p.START_AFTER = 0\n"
        "model = load_model(sys.argv[1]).description\n"
        "extractor = e.Extractor(DetectorSettings(), model, Runtime('onnxruntime'))\n"
        "processes = p.ExtractorProcesses(extractor, 2)\n"
        "processes.extract([])\n"
        "print(*(process.pid for process in processes._processes), flush=True)\n"
        "time.sleep(600)\n"
    )
    asked = [sys.executable, "-c", program, str(tiny_model)]
    with Started(asked, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        pids = [int(pid) for pid in started.stdout.readline().split()]
        started.send_signal(how)
    assert len(pids) == 2
    assert all(map(ended, pids))
