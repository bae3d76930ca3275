"""``face2vec compare``: figures of each encoder, the table, and encoders that are not available."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import draw_lfw, posix_only
from PIL import Image

from face2vec.cli.main import main
from face2vec.errors import ModelError
from face2vec.evaluation import comparison, measuring
from face2vec.evaluation.comparison import Compared, Comparison, compare
from face2vec.evaluation.encoders import EncodedFace
from face2vec.evaluation.measuring import Measured, measured, median_rate
from face2vec.evaluation.report import identification_report, pairs_report
from face2vec.evaluation.sets import lfw_pairs, named_faces, photos_in

PEOPLE, PHOTOS = 4, 3


@pytest.fixture(scope="module")
def lfw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people with three photos each, and pairs in two folds."""
    folder = tmp_path_factory.mktemp("lfw")
    draw_lfw(folder, PEOPLE, PHOTOS, seed=11)
    return folder


@pytest.fixture(scope="module")
def broken_model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A model description beside a file that is not a graph."""
    path = tmp_path_factory.mktemp("broken") / "broken.onnx"
    path.write_bytes(b"no graph")
    shutil.copy(tiny_model.with_suffix(".json"), path.with_suffix(".json"))
    return path


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(main, ["compare", *map(str, words)])


@pytest.fixture(scope="module")
def compared(
    lfw: Path, tiny_model: Path, broken_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Path]:
    """Result of the command for two models and one that cannot be loaded, and its folder."""
    out = tmp_path_factory.mktemp("out") / "compared"
    return run("mini", tiny_model, broken_model, "--lfw", lfw, "--people", lfw, "--out", out), out


def test_compare_equals_the_figures_of_evaluate(
    compared: tuple[Any, Path], lfw: Path, tiny_model: Path
) -> None:
    facts = json.loads((compared[1] / "figures.json").read_text(encoding="utf-8"))
    assert facts["cores"] == os.cpu_count()
    for found, model, dimension in zip(
        facts["encoders"], ("mini", tiny_model), (256, 64), strict=False
    ):
        faces = named_faces(photos_in(lfw), model=model)
        assert found["lfw"]["photos_without_a_face"] == faces.without_face == 1
        assert (found["encoder"], found["dimension"]) == (str(model), dimension)
        assert found["weights"] == faces.weights
        for name, part in (
            ("lfw", pairs_report("", faces, lfw_pairs(lfw))),
            ("people", identification_report("", faces)),
        ):
            assert_alike(found[name], part.figures)
        assert found["failures"] == 0
        assert min(found["photos_per_second"], found["faces_per_second"]) > 0
        assert found["peak_bytes"] > 30e6
    assert facts["encoders"][1]["weights_bytes"] == tiny_model.stat().st_size


def assert_alike(found: Any, expected: Any) -> None:
    """Compare figures up to rounding, which may differ in another process."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_alike(found[name], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    else:
        assert found == pytest.approx(expected, abs=1e-5, nan_ok=True)


def test_compare_prints_one_row_per_encoder(compared: tuple[Any, Path], tiny_model: Path) -> None:
    facts = json.loads((compared[1] / "figures.json").read_text(encoding="utf-8"))
    lines = compared[0].stdout.splitlines()
    heads = re.split(r"  +", lines[0])
    for line, found in zip(lines[1:3], facts["encoders"], strict=False):
        row = dict(zip(heads, re.split(r"  +", line), strict=True))
        figures = found["lfw"]
        accuracy, error = figures["view_2_accuracy"], figures["view_2_standard_error"]
        assert row["LFW View 2"] == f"{accuracy:.2%} ± {error:.2%}"
        assert row["TAR at FAR 0.001"] == f"{figures['tar'][2]['tar']:.1%}"
        assert row["rank-1"] == f"{found['people']['cmc']['1']:.1%}"
        assert row["no face"] == "1 of 12"
        assert row["photos/s"] == f"{found['photos_per_second']:,.1f}"
        assert row["faces/s"] == f"{found['faces_per_second']:,.1f}"
        assert row["memory"] == f"{found['peak_bytes'] / 2**20:,.0f} MiB"
        assert row["weights"] == f"{found['weights_bytes'] / 1e6:,.1f} MB"
        assert row["dimension"] == str(found["dimension"])
    assert lines[2].startswith(str(tiny_model))


def test_compare_reports_why_an_encoder_was_not_measured(
    compared: tuple[Any, Path], broken_model: Path
) -> None:
    done, out = compared
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert re.fullmatch(rf"{re.escape(str(broken_model))} +not measured here", lines[3])
    assert lines[-1].startswith(f"{broken_model}, not measured here: {broken_model} cannot be ")
    assert "1 of 3: mini" in done.stderr
    facts = json.loads((out / "figures.json").read_text(encoding="utf-8"))["encoders"]
    assert facts[0]["not_measured"] is None
    assert set(facts[2]) == {"encoder", "not_measured"}
    assert "cannot be loaded" in facts[2]["not_measured"]


def test_compare_writes_a_page_with_the_table_and_the_curves(
    compared: tuple[Any, Path], broken_model: Path
) -> None:
    page = (compared[1] / "compare.html").read_text(encoding="utf-8")
    assert '<th scope="row">mini</th>' in page
    for word in ("not measured here", "1 of 12", "256"):
        assert f"<td>{word}</td>" in page
    assert f"{broken_model}, not measured here: " in page
    assert page.count("<svg ") == 1
    assert "<script" not in page
    tables, explained = page.split("What the columns say</h2>")
    for column in re.findall(r'<th scope="col">(.*?)</th>', tables):
        assert f'<th scope="row">{column}</th><td class="words">' in explained
    facts = json.loads((compared[1] / "figures.json").read_text(encoding="utf-8"))["encoders"]
    for one in facts[:2]:
        words = f"SHA-256 of the weights of {one['encoder']}: <code>{one['weights']}</code>"
        assert words in explained
        assert f"<h2>Photos that failed with {one['encoder']}</h2>" in explained
    assert explained.count("P0_0003.jpg</bdi></a>: no face was found</li>") == 2
    assert "Command: <code>" in explained
    with Image.open(compared[1] / "curves.png") as picture:
        assert picture.width > 600


def test_compare_without_people_omits_rank_1_and_prints_json(lfw: Path, tiny_model: Path) -> None:
    done = run(tiny_model, tiny_model, "--lfw", lfw, "--json", "-q")
    assert (done.exit_code, done.stderr) == (0, "")
    (row,) = json.loads(done.stdout)["encoders"]
    assert row["people"] is None
    shown = Comparison((Compared("x", row),)).to_text()
    assert "rank-1" not in shown
    assert "1 of 12" in shown


def test_compare_refuses_invalid_names_before_measuring(
    lfw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "measured", lambda *_, **__: pytest.fail("measured"))
    done = run("mini", "minni", "--lfw", lfw)
    assert done.exit_code == 3
    assert "did you mean 'mini'" in done.stderr


def found(embeddings: dict[Path, EncodedFace], why: dict[Path, str] | None = None) -> Measured:
    return Measured("x", 2, "00", 5, "here", 1.0, 2.0, None, why or {}, embeddings)


def test_encoder_that_finds_too_few_faces_is_not_measured(
    lfw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = photos_in(lfw)
    face = EncodedFace((0, 0, 1, 1), np.array([1, 0], np.float32))
    first_fold = {p: face for p, name in photos.people.items() if name in ("P0", "P1")}
    monkeypatch.setattr(comparison, "measured", lambda *_, **__: found(first_fold))
    (row,) = compare(["x"], photos, lfw_pairs(lfw)).rows
    assert row.reason == (
        "faces were found in 6 of 12 photos; genuine and impostor pairs in at least two folds are "
        "needed"
    )
    everyone = dict.fromkeys(photos.people, face)
    why = dict.fromkeys(list(photos.people)[:2], "truncated")
    monkeypatch.setattr(comparison, "measured", lambda *_, **__: found(everyone, why))
    whole = compare(["x"], photos, lfw_pairs(lfw))
    assert whole.complete
    assert whole.rows[0].figures["lfw"]["auc"] == 0.5
    assert whole.to_text().endswith("x: failed on 2 photos")


def test_encoder_that_finds_no_face_is_not_measured(tiny_model: Path, tmp_path: Path) -> None:
    Image.linear_gradient("L").save(tmp_path / "nobody.png")
    (tmp_path / "text.jpg").write_text("no photo")
    with pytest.raises(ModelError, match=r"no face in any of 2 photos; the first failure: .*text"):
        measured(str(tiny_model), [tmp_path / "nobody.png", tmp_path / "text.jpg"])


@posix_only
def test_killed_process_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    real = subprocess.run

    def killed(_: list[str], **settings: Any) -> subprocess.CompletedProcess[bytes]:
        return real([sys.executable, "-c", kill], **settings)

    monkeypatch.setattr(measuring.subprocess, "run", killed)
    with pytest.raises(ModelError, match="ended by signal 9; check that there is enough memory"):
        measured("mini", [tmp_path / "1.jpg"])


def test_median_rate_is_the_median_of_blocks() -> None:
    # 12 photos are six blocks of 2: the first lasts 9 s, the others 0.5, 1, 2, 1 and 4 s.
    steps = np.repeat([9, 0.5, 1, 2, 1, 4], 2) / 2
    times = np.concatenate([[5], 5 + np.cumsum(steps)])
    assert median_rate(times) == pytest.approx(np.median([2 / 9, 4, 2, 1, 2, 0.5]))
    assert median_rate([1.0, 1.5]) == 2
    many = np.arange(64 * 3 + 10) / 7.0
    many[70:] += 100
    assert median_rate(many) == pytest.approx(7)


def test_peak_memory_is_that_of_the_process() -> None:
    hold = bytearray(300_000_000)
    hold[::4096] = b"x" * len(hold[::4096])
    code = "from face2vec.evaluation.measuring import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert measuring.peak_memory() > len(hold)
    assert 10_000_000 < int(done.stdout) < len(hold)


# A process of its own: that of the tests has other children, whose memory changes.
PARENT_OF_ONE = """
import subprocess, sys
from face2vec.evaluation.measuring import children_memory

code = "hold = bytes(range(256)) * 200_000; print(len(hold), flush=True); input()"
before = children_memory()
child = subprocess.Popen(
    [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
)
held = int(child.stdout.readline())
during = children_memory()
child.communicate("\\n")
print(before, held, during, children_memory())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_children_memory_is_that_of_child_processes() -> None:
    done = subprocess.run([sys.executable, "-c", PARENT_OF_ONE], capture_output=True, check=True)
    before, held, during, after = map(int, done.stdout.split())
    assert held == 256 * 200_000
    assert held < during < held + 100e6
    assert (before, after) == (0, 0)
