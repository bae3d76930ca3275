"""The benchmarks still measure what the engine does; how fast it is they say themselves."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
HELPERS = ("common", "keras_weights")
"""Modules that are no benchmarks."""


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their modules can be imported, as when one of them is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in [path.stem for path in BENCHMARKS.glob("*.py")]:
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("benchmarks")
@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_benchmark_finds_all_that_it_imports(name: str) -> None:
    assert callable(getattr(importlib.import_module(name), "main", None)) or name in HELPERS


@pytest.mark.usefixtures("benchmarks")
def test_search_asks_face2vec_and_faiss_for_the_same_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import search

    monkeypatch.setattr(search, "TURNS", (20, 2))
    (quality,), speed = search.measure(300, ["flat"], 1, tmp_path, search.ISOTROPIC)
    faces, kind, recall, strangers, told, *_ = quality
    assert (faces, kind, recall, strangers, told) == ("300", "flat", "1.000", "1.000", "exact")
    assert [row[:3] for row in speed] == [
        ["300", "flat", "its file"],
        ["300", "flat", "memory"],
    ]
    assert all(float(row[place]) >= 0 for row in speed for place in (3, 4, 6, 7))


@pytest.mark.usefixtures("benchmarks")
def test_search_draws_faces_of_a_person_that_are_as_similar_as_it_says() -> None:
    import search

    people = 50
    faces = search.Drawn(search.ISOTROPIC, people).faces(2 * people, seed=1)
    np.testing.assert_allclose(np.linalg.norm(faces, axis=1), 1, atol=1e-5)
    alike = (faces[:people] * faces[people:]).sum(1)
    assert abs(alike.mean() - search.COSINE) < 0.02
    assert abs((faces[:people] * faces[1 : people + 1]).sum(1).mean()) < 0.05


@pytest.mark.usefixtures("benchmarks")
def test_search_draws_faces_with_the_spectrum_that_was_measured() -> None:
    import search

    spectrum = np.linspace(3, 1, 32) / 64
    strangers = search.Drawn(spectrum.tolist(), 1).strangers(20_000, seed=1)
    variance = np.linalg.eigvalsh(strangers.T @ strangers / len(strangers))[::-1]
    np.testing.assert_allclose(variance, spectrum, rtol=0.1)


@pytest.mark.usefixtures("benchmarks")
def test_publish_changes_only_what_stands_between_its_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import common

    page, other = tmp_path / "README.md", tmp_path / "other.md"
    page.write_text("before\n<!-- speed -->\nold\n<!-- /speed -->\nafter\n", encoding="utf-8")
    other.write_text("nothing of it\n", encoding="utf-8")
    for name, value in (("RESULTS", tmp_path / "results"), ("QUOTING", (page, other))):
        monkeypatch.setattr(common, name, value)
    common.publish("speed", "How fast", "| 1 |", "python benchmarks/speed.py", ("numpy",))
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["before", "<!-- speed -->", "How fast:"]
    assert lines[-2:] == ["<!-- /speed -->", "after"]
    assert "old" not in lines
    assert other.read_text(encoding="utf-8") == "nothing of it\n"
    written = (tmp_path / "results" / "speed.md").read_text(encoding="utf-8")
    assert written.startswith("# How fast\n\n| 1 |\n\n`python benchmarks/speed.py`, ")


@pytest.mark.usefixtures("benchmarks")
def test_tables_in_readme_are_of_the_results() -> None:
    import common

    text = (common.ROOT / "README.md").read_text(encoding="utf-8")
    _, found, rest = text.partition("<!-- summary -->\n")
    assert found
    assert rest.partition("<!-- /summary -->")[0] == common.summary()
    _, found, rest = text.partition("<!-- rates -->\n")
    assert found
    assert rest.partition("<!-- /rates -->")[0] == common.rates()


@pytest.mark.usefixtures("benchmarks")
def test_pages_quote_the_results_as_they_are() -> None:
    import common

    quoted = set()
    for page in common.QUOTING:
        text = page.read_text(encoding="utf-8")
        for result in common.RESULTS.glob("*.md"):
            _, found, rest = text.partition(f"<!-- {result.stem} -->\n")
            if found:
                quoted.add(result.stem)
                title, body = result.read_text(encoding="utf-8").split("\n\n", 1)
                body, _, made = body.rstrip().rpartition("\n\n")
                block = f"{title.removeprefix('# ')}:\n\n{body}\n\n<sub>{made}</sub>\n"
                assert rest.partition(f"<!-- /{result.stem} -->")[0] == block, (page, result)
    assert quoted >= {"build", "detect", "search", "search-1e6", "calibration-mini", "upgrade"}


@pytest.mark.usefixtures("benchmarks")
def test_cell_of_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import common

    text = "# Two\n\n| a | b | c |\n|---|---|---|\n| x | 1 | 2 |\n| y | 1 | **3** |\n\nend\n"
    (tmp_path / "two.md").write_text(text, encoding="utf-8")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    assert common.cell("two", ("y", "1"), "c") == "3"
    assert common.cell("two", ("x",), "") == "1"
    with pytest.raises(KeyError, match=r"two\.md has no row"):
        common.cell("two", ("x",), "d")


@pytest.mark.usefixtures("benchmarks")
def test_ratio_is_of_what_was_measured_side_by_side() -> None:
    import common

    ways: dict[str, Any] = {"ours": iter([3.0, 40.0, 6.0]), "theirs": iter([1.0, 10.0, 2.0])}
    taken = common.in_turn({name: lambda it=it: next(it) for name, it in ways.items()}, 3)
    assert taken == {"ours": [3.0, 40.0, 6.0], "theirs": [1.0, 10.0, 2.0]}
    assert common.ratio(taken["ours"], taken["theirs"]) == 3.0


@pytest.mark.usefixtures("benchmarks")
def test_scale_plans_grow_with_the_faces() -> None:
    import scale

    cost = scale.Cost(
        photo_seconds=0.36, faces=2, row_bytes=1000, milvus_bytes=4368, record_seconds=864e-6
    )
    plan = scale.plan(cost, 10**9, dimension=232)
    assert plan["photos"] == 5e8
    assert plan["core hours"] == pytest.approx(50_000)
    assert plan["days to record"] == pytest.approx(10)
    assert plan["machines"] == 10  # 50,000 / (32 cores × 168 hours), rounded up
    assert plan["memory GiB"] == pytest.approx(1.5 * 256e9 / 2**30)
    assert plan["disk GiB"] == pytest.approx(5368e9 / 2**30)
    assert plan["build $"] == pytest.approx(50_000 * scale.CORE_HOUR)
    smaller = scale.plan(cost, 10**8, dimension=232)
    assert smaller["machines"] == 1
    assert smaller["month $"] == pytest.approx(plan["month $"] / 10)
