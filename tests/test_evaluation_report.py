"""Reports and ``face2vec evaluate``: figures and pages."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import draw_lfw
from PIL import Image

from face2vec.cli.main import main
from face2vec.evaluation.identification import identify
from face2vec.evaluation.metrics import all_pairs, ten_folds, true_accepts
from face2vec.evaluation.report import explained, identification_report, pairs_report
from face2vec.evaluation.sets import NamedFaces, lfw_pairs, named_faces, photos_in

PEOPLE, PHOTOS, FOLDS = 6, 4, 3


@pytest.fixture(scope="module")
def lfw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people with four photos each, and pairs in three folds."""
    folder = tmp_path_factory.mktemp("lfw")
    draw_lfw(folder, PEOPLE, PHOTOS, seed=5)
    return folder


@pytest.fixture(scope="module")
def gallery(lfw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("galleries") / "lfw"
    named_faces(photos_in(lfw), place, model="mini")
    return place


@pytest.fixture(scope="module")
def faces(lfw: Path, gallery: Path) -> NamedFaces:
    return named_faces(photos_in(lfw), gallery)


def test_pairs_report_equals_the_metrics(lfw: Path, faces: NamedFaces) -> None:
    report = pairs_report("Drawn", faces, lfw_pairs(lfw))
    pairs = all_pairs(faces.embeddings, faces.people, faces.counts)
    assert report.figures["photos_without_a_face"] == faces.without_face == 1
    assert report.figures["genuine_pairs"] == PEOPLE * PHOTOS * (PHOTOS - 1) // 2
    assert report.figures["genuine_pairs_without_a_face"] == pairs.missed == 3
    for one in report.figures["tar"]:
        assert one["tar"] == true_accepts(pairs, one["far"]).tar
    embedding = dict(zip(faces.photos, faces.embeddings, strict=True))
    embedding[lfw / "P0" / "P0_0004.jpg"] = np.full(256, np.nan, np.float32)
    compared = lfw_pairs(lfw)
    folds = ten_folds(
        np.array([embedding[pair.first] @ embedding[pair.second] for pair in compared]),
        np.array([True, True, False, False] * FOLDS),
        np.repeat(np.arange(FOLDS), 4),
    )
    assert report.figures["view_2_accuracy"] == folds.mean
    assert report.figures["view_2_pairs_without_a_face"] == folds.missing == 1
    words = f"{folds.mean:.2%} ± {folds.standard_error:.2%}"
    assert ("View 2 accuracy, ten folds ± standard error", words) in report.rows


def test_worst_pairs_are_the_largest_errors(lfw: Path, faces: NamedFaces) -> None:
    report = pairs_report("Drawn", faces, lfw_pairs(lfw))
    same = [pair.similarity for pair in report.worst if pair.same]
    other = [pair.similarity for pair in report.worst if not pair.same]
    assert same == sorted(same)
    assert other == sorted(other, reverse=True)
    assert (len(same), len(other)) == (6, 5)
    for pair in report.worst:
        rows = [faces.photos.index(photo) for photo in (pair.first, pair.second)]
        assert pair.similarity == pytest.approx(float(np.dot(*faces.embeddings[rows])), abs=1e-6)
        assert pair.first_box == faces.boxes[rows[0]]


def test_identification_report_equals_identify(faces: NamedFaces) -> None:
    figures = identification_report("Drawn", faces).figures
    found = identify(faces.embeddings, faces.people, faces.counts)
    assert figures["asked"] == PEOPLE * PHOTOS
    assert figures["asked_without_a_face"] == 1
    assert figures["cmc"] == {str(rank): found.within(rank) for rank in (1, 5, 10, 50)}
    assert [(one["threshold"], one["fnir"]) for one in figures["open_set"]] == [
        found.false_negatives(rate) for rate in (1e-1, 1e-2, 1e-3)
    ]


def evaluate(*words: str | Path) -> tuple[str, str]:
    done = CliRunner().invoke(main, ["evaluate", *map(str, words), "-q"])
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_evaluate_lfw_prints_figures_and_writes_a_page(
    lfw: Path, gallery: Path, faces: NamedFaces, tmp_path: Path
) -> None:
    out, err = evaluate("lfw", lfw, "--gallery", gallery, "--out", tmp_path / "r")
    report = pairs_report("Labeled Faces in the Wild, mini", faces, lfw_pairs(lfw))
    assert out == report.to_text() + "\n"
    assert str(tmp_path / "r" / "report.html") in err
    figures = json.loads((tmp_path / "r" / "figures.json").read_text(encoding="utf-8"))
    assert figures == json.loads(report.to_json())
    with Image.open(tmp_path / "r" / "curves.png") as picture:
        assert picture.width > 600
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 2 * len(report.worst)
    assert page.count("<svg ") == 1
    for what, value in report.rows:
        words = html.escape(explained(what))
        assert len(words) > 20
        row = f'>{what}</th><td class="value">{value}</td><td class="words">{words}</td>'
        assert row in page
    assert faces.weights in page
    assert re.search(r"Made on 20\d\d-\d\d-\d\d\.", page)
    assert "Command: <code>face2vec" in page
    ((failed, why),) = faces.failed
    assert why == "no face was found"
    assert f"<bdi>{failed}</bdi></a>: {why}</li>" in page
    assert "<script" not in page
    assert "http" not in page


@pytest.mark.parametrize("command", ["pairs", "identification"])
def test_evaluate_prints_json_for_a_folder_and_a_list(
    command: str, lfw: Path, gallery: Path, tmp_path: Path
) -> None:
    of_folder, _ = evaluate(command, lfw, "--gallery", gallery, "--json")
    listed = lfw / "identity.txt"
    people = photos_in(lfw).people
    listed.write_text("".join(f"{path.relative_to(lfw)} {name}\n" for path, name in people.items()))
    of_list, _ = evaluate(command, listed, "--gallery", gallery, "--json")
    listed.unlink()
    assert json.loads(of_list) == json.loads(of_folder)
    assert json.loads(of_folder)["people"] == PEOPLE


def test_evaluate_without_a_gallery_leaves_no_files(
    lfw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = sorted(lfw.rglob("*"))
    out, _ = evaluate("identification", lfw, "--model", "mini")
    assert "Right person first (rank-1)" in out
    assert sorted(lfw.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []


def test_evaluate_lfw_refuses_other_folders(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["evaluate", "lfw", str(tmp_path)])
    assert done.exit_code == 3
    assert "has no pairs.txt" in done.stderr


def test_evaluate_lfw_refuses_a_single_fold(lfw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lfw"
    folder.mkdir()
    for person in lfw.iterdir():
        if person.is_dir():
            (folder / person.name).symlink_to(person)
    head, *lines = (lfw / "pairs.txt").read_text(encoding="utf-8").splitlines()
    half = int(head.split()[1])
    (folder / "pairs.txt").write_text("\n".join([f"1 {half}", *lines[: 2 * half]]))
    done = CliRunner().invoke(main, ["evaluate", "lfw", str(folder), "-q"])
    assert done.exit_code == 3
    assert "genuine and impostor pairs in at least two folds are needed" in done.stderr


def test_unknown_figures_are_null_in_json(lfw: Path, faces: NamedFaces) -> None:
    alone = np.unique(faces.people, return_index=True)[1]  # one photo per person: no genuine pair
    one_each = replace(
        faces,
        photos=tuple(faces.photos[i] for i in alone),
        embeddings=faces.embeddings[alone],
        people=faces.people[alone],
        counts=np.ones(PEOPLE, np.int64),
    )

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    told = json.loads(pairs_report("alone", one_each).to_json(), parse_constant=refuse)
    assert (told["auc"], told["genuine_pairs"]) == (None, 0)


def test_evaluate_stores_no_faces_of_other_encoders(lfw: Path, tmp_path: Path) -> None:
    words = ["lfw", str(lfw), "--model", "deepface:Facenet", "--gallery", str(tmp_path / "g")]
    done = CliRunner().invoke(main, ["evaluate", *words])
    assert done.exit_code == 2
    assert "leave out --gallery" in done.stderr
    assert not (tmp_path / "g").exists()


def test_axes_end_where_the_curve_does(faces: NamedFaces, lfw: Path) -> None:
    for report in (pairs_report("Drawn", faces), identification_report("Drawn", faces)):
        (axes,) = report.drawn().axes
        ((_, x, y),) = report.curves
        left, right = axes.get_xlim()
        bottom, top = axes.get_ylim()
        assert left == pytest.approx(min(max(x[x > 0].min(), 1e-6), 0.5))
        assert right == 1
        shown = y[x >= left]
        assert bottom <= shown.min()
        assert top >= shown.max()
        assert top - bottom <= 1.2 * (shown.max() - shown.min()) + 0.03
