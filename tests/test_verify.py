"""Verifying through engine and command line, and calibrations kept with galleries and models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import reads

from face2vec import Face2Vec, samples
from face2vec.calibration import Calibration
from face2vec.cli.main import main
from face2vec.errors import (
    CalibrationError,
    GalleryMismatchError,
    NoFaceError,
    SettingsError,
)
from face2vec.evaluation.fitting import calibration_on
from face2vec.evaluation.sets import photos_in
from face2vec.gallery.gallery import Gallery
from face2vec.models import calibration_of, load_model

PEOPLE, PHOTOS = 16, 4


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn people, a folder each."""
    folder = tmp_path_factory.mktemp("people")
    for number, person in enumerate(samples.people(PEOPLE, seed=8)):
        (folder / f"{number:02d}").mkdir()
        for photo in range(PHOTOS):
            (folder / f"{number:02d}" / f"{photo}.jpg").write_bytes(person.photo(photo).jpeg())
    return folder


@pytest.fixture(scope="module")
def fitted(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return calibration_on(photos_in(people), tmp_path_factory.mktemp("faces") / "g", model="mini",
                          data="drawn people")  # fmt: skip


@pytest.fixture
def gallery(people: Path, fitted: Calibration, tmp_path: Path) -> Path:
    """Two people's photos, with the calibration."""
    folder = tmp_path / "gallery"
    with Face2Vec(folder, model="mini") as engine:
        engine.add(people / "00", people / "01")
        engine.calibrate(fitted)
    return folder


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_calibration_on_people_says_what_it_was_fitted_on(fitted: Calibration) -> None:
    assert (fitted.model, fitted.data, fitted.people) == ("mini", "drawn people", PEOPLE)
    assert fitted.weights == load_model("mini").weights_sha256
    assert fitted.genuine == PEOPLE * PHOTOS * (PHOTOS - 1) // 2
    assert fitted.impostor == PEOPLE * (PEOPLE - 1) // 2 * PHOTOS**2


def test_verify_tells_one_person_from_two(people: Path, gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        one = engine.verify(people / "02" / "0.jpg", people / "02" / "1.jpg", far=0.1)
        two = engine.verify(people / "02" / "0.jpg", people / "03" / "1.jpg", far=0.1)
        faces = [engine.encode(people / "02" / f"{n}.jpg")[0] for n in (0, 1)]
    assert one.same
    assert not two.same
    assert one.probability > 0.9 > 0.5 > two.probability
    similarity = float(faces[0].embedding @ faces[1].embedding)
    assert one.similarity == pytest.approx(similarity, abs=1e-5)
    assert one.far == 0.1


def test_verify_takes_photos_faces_and_embeddings_alike(people: Path, gallery: Path) -> None:
    photos = [people / "02" / f"{n}.jpg" for n in (0, 1)]
    with Face2Vec(gallery) as engine:
        faces = [engine.encode(photo)[0] for photo in photos]
        answers = [
            engine.verify(*photos, far=0.1),
            engine.verify(*faces, far=0.1),
            engine.verify(photos[0].read_bytes(), faces[1].embedding, far=0.1),
            engine.verify(3.0 * faces[0].embedding, faces[1], far=0.1),
        ]
        stored = engine.search(faces[0], k=2)[0].matches
        between = engine.verify(stored[0].face, stored[1].face, far=0.1)
    for answer in answers[1:]:
        assert answer.similarity == pytest.approx(answers[0].similarity, abs=1e-5)
        assert answer.probability == pytest.approx(answers[0].probability, abs=1e-3)
    assert -1 <= between.similarity <= 1


def test_verify_refuses_what_another_model_encoded(people: Path, gallery: Path) -> None:
    photo = people / "02" / "0.jpg"
    with Face2Vec(model="mini") as alone, Face2Vec(gallery) as engine:
        face = alone.encode(photo)[0]
        assert engine.verify(face, photo, far=0.1).similarity == pytest.approx(1, abs=1e-5)
        assert alone.verify(face, face).similarity == pytest.approx(1, abs=1e-5)
        for one in (alone, engine):
            with pytest.raises(GalleryMismatchError, match="by another model"):
                one.verify(replace(face, model="another"), face)
        # The gallery's own model file was replaced by another's.
        engine._session._model = replace(load_model("mini"), weights_sha256=64 * "0")
        with pytest.raises(GalleryMismatchError, match="was made with model mini"):
            engine.verify(photo, photo)


def test_verify_answers_many_pairs_at_once(people: Path, gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        rows = np.stack(
            [engine.encode(people / f"{n:02d}" / "0.jpg")[0].embedding for n in (2, 3, 4)]
        )
        others = np.stack(
            [engine.encode(people / f"{n:02d}" / "1.jpg")[0].embedding for n in (2, 4, 4)]
        )
        many = engine.verify(rows, others, far=0.1)
        one_by_one = [engine.verify(a, b, far=0.1) for a, b in zip(rows, others, strict=True)]
        with pytest.raises(SettingsError, match="cannot be verified in pairs"):
            engine.verify(rows, others[:2])
    assert many.same.tolist() == [one.same for one in one_by_one]
    np.testing.assert_allclose(many.similarity, [one.similarity for one in one_by_one], atol=1e-6)
    np.testing.assert_allclose(many.probability, [one.probability for one in one_by_one], atol=1e-4)


def test_verify_of_a_photo_without_a_face_raises(
    people: Path, gallery: Path, faces_folder: Path
) -> None:
    with Face2Vec(gallery) as engine, pytest.raises(NoFaceError, match="nobody"):
        engine.verify(faces_folder / "nobody.jpg", people / "00" / "0.jpg")


def test_verify_without_a_calibration_raises(people: Path, tiny_model: Path) -> None:
    with pytest.raises(CalibrationError, match="face2vec calibrate GALLERY --people PEOPLE"):
        Face2Vec(model=tiny_model).verify(people / "00" / "0.jpg", people / "00" / "1.jpg")


def test_calibration_beside_a_model_is_found(
    people: Path, fitted: Calibration, tiny_model: Path
) -> None:
    model = load_model(tiny_model)
    named = ("tiny", model.weights_sha256, str(tiny_model))
    file = tiny_model.with_suffix(".calibration.json")
    own = replace(fitted, model="tiny", weights=model.weights_sha256)
    try:
        file.write_text(own.to_json(), encoding="utf-8")
        assert calibration_of(*named) == own
        assert Face2Vec(model=tiny_model).calibration == own
        file.write_text(fitted.to_json(), encoding="utf-8")
        with pytest.raises(CalibrationError, match="belongs to other weights"):
            calibration_of(*named)
    finally:
        file.unlink()
    assert calibration_of(*named) is None


def test_shipped_model_comes_with_its_calibration() -> None:
    model = load_model("mini")
    shipped = calibration_of("mini", model.weights_sha256, model.origin)
    assert shipped is not None
    assert shipped.people > 5000
    assert 0.3 < shipped.threshold(1e-3) < 0.7
    assert shipped.probability(0.9) > 0.99
    assert shipped.probability(0.0) < 0.2
    assert Face2Vec(model="mini").calibration == shipped


def test_shipped_calibration_is_not_taken_for_a_model_of_the_same_name() -> None:
    assert calibration_of("mini", "00" * 32, "/somewhere/mini.onnx") is None
    assert calibration_of("team/model-v2", "00" * 32, "/somewhere/m.onnx") is None


def test_gallery_keeps_its_calibration_and_not_another_model_s(
    gallery: Path, fitted: Calibration
) -> None:
    with Gallery.open(gallery) as opened:
        assert reads(opened).calibration() == fitted
        with opened.write() as writer:
            with pytest.raises(GalleryMismatchError, match="fit it with the gallery's own model"):
                writer.calibrate(replace(fitted, weights="00" * 32))
            newer = replace(fitted, data="newer")
            writer.calibrate(newer)
        assert reads(opened).calibration() == newer


def test_engine_uses_a_new_calibration_at_once(
    people: Path, gallery: Path, fitted: Calibration
) -> None:
    with Face2Vec(gallery) as engine:
        assert engine.calibration == fitted
        engine.calibrate(replace(fitted, log_ratios=tuple(v - 20 for v in fitted.log_ratios)))
        match = engine.search(people / "00" / "0.jpg", k=2)[0].matches[1]
    assert match.probability < 1e-3


def test_gallery_without_a_calibration_has_none(people: Path, tmp_path: Path) -> None:
    with Face2Vec(tmp_path / "g", model="mini") as engine:
        engine.add(people / "00")
    with Gallery.open(tmp_path / "g") as opened:
        assert reads(opened).calibration() is None


def test_verify_command_decides_same_or_different_person(people: Path, gallery: Path) -> None:
    same = run("verify", people / "02" / "0.jpg", people / "02" / "1.jpg", "--gallery", gallery,
               "--far", "0.1")  # fmt: skip
    assert (same.exit_code, same.stdout.splitlines()[0]) == (0, "same person")
    assert "calibrated on drawn people" in same.stderr
    other = run("verify", people / "02" / "0.jpg", people / "03" / "0.jpg", "--gallery", gallery,
                "--far", "0.1", "--json")  # fmt: skip
    facts = json.loads(other.stdout)
    assert (other.exit_code, facts["same"], facts["far"]) == (1, False, 0.1)
    assert facts["distance"] == pytest.approx(np.sqrt(2 - 2 * facts["similarity"]))


@pytest.mark.parametrize("command", ["verify one.jpg two.jpg", "lab slices table.csv"])
def test_nan_is_no_rate(command: str, tmp_path: Path) -> None:
    for name in ("one.jpg", "two.jpg", "table.csv"):
        (tmp_path / name).touch()
    words = [str(tmp_path / word) if "." in word else word for word in command.split()]
    done = run(*words, "--far", "nan")
    assert done.exit_code == 2
    assert "nan is not a number" in done.stderr


def test_calibrate_command_looks_first_where_it_is_to_write(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "none" / "c.json"
    done = run("calibrate", "--people", people, "--model", "mini", "--out", out)
    assert done.exit_code == 3
    assert str(out) in done.stderr
    assert "folder" in done.stderr


def test_verify_command_needs_a_gallery_where_one_is_named(people: Path, tmp_path: Path) -> None:
    photo = people / "02" / "0.jpg"
    done = run("verify", photo, photo, "--gallery", tmp_path)
    assert (done.exit_code, done.stdout) == (3, "")
    assert str(tmp_path) in done.stderr


def test_verify_command_refuses_a_rate_that_cannot_be_known(people: Path, gallery: Path) -> None:
    done = run("verify", people / "02" / "0.jpg", people / "02" / "1.jpg", "--gallery", gallery,
               "--far", "1e-6")  # fmt: skip
    assert done.exit_code == 3
    assert "no threshold is known" in done.stderr


@pytest.mark.parametrize("deprecated", [False, True])
def test_calibrate_command_stores_with_the_gallery(
    people: Path, fitted: Calibration, tmp_path: Path, deprecated: bool
) -> None:
    gallery = tmp_path / "g"
    with Face2Vec(gallery, model="mini") as engine:
        engine.add(people / "00")
    words = (people, "--gallery", gallery) if deprecated else (gallery, "--people", people)
    done = run("calibrate", *words, "--data", "drawn people", "-q")
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert f"Fitted on {fitted.genuine:,} genuine pairs" in done.stderr
    assert ("deprecated" in done.stderr) == deprecated
    with Gallery.open(gallery) as opened:
        kept = reads(opened).calibration()
    assert kept is not None
    np.testing.assert_allclose(kept.thresholds, fitted.thresholds, atol=1e-5)
    assert kept.data == "drawn people"


@pytest.mark.parametrize("deprecated", [False, True])
def test_calibrate_command_writes_a_file(
    people: Path, fitted: Calibration, tmp_path: Path, deprecated: bool
) -> None:
    out = tmp_path / "mini.calibration.json"
    named = (people,) if deprecated else ("--people", people)
    done = run("calibrate", *named, "--model", "mini", "--out", out, "-q")
    assert done.exit_code == 0, done.output
    assert ("deprecated" in done.stderr) == deprecated
    written = Calibration.from_json(out.read_text(encoding="utf-8"))
    assert written.data == people.name
    np.testing.assert_allclose(written.thresholds, fitted.thresholds, atol=1e-5)


def test_calibrate_command_wants_to_know_where_to(people: Path, gallery: Path) -> None:
    assert run("calibrate", "--people", people).exit_code == 2
    assert run("calibrate", gallery, "--people", people, "--model", "mini").exit_code == 2
    assert run("calibrate", people).exit_code == 3


def test_search_with_photos_of_several_people_is_less_certain(people: Path, gallery: Path) -> None:
    with Face2Vec(gallery) as engine:
        (one,) = engine.search([people / "00" / "0.jpg", people / "00" / "1.jpg"], k=3)
        (both,) = engine.search([people / "00" / "0.jpg", people / "01" / "0.jpg"], k=3)
    assert [match.outside for match in one.matches] == [()] * 3
    words = "the photos of the query may show several people"
    assert [match.outside for match in both.matches] == [(words,)] * 3
    assert f"less certain: {words}" in both.matches.to_text()


def test_search_gives_probabilities_for_the_size_of_the_gallery(
    people: Path, gallery: Path, fitted: Calibration
) -> None:
    with Face2Vec(gallery) as engine:
        (found,) = engine.search(people / "00" / "0.jpg", k=8)
        with engine._session.gallery().read() as now:
            matched = now.embeddings(np.array([match.face.id for match in found.matches]))
    assert len(found.matches) == 8
    assert fitted.crowding is not None  # calibrated with the model's own
    crowding = (fitted.crowded(found.face.embedding) + fitted.crowded(matched)) / 2
    for match, near in zip(found.matches, crowding, strict=True):
        # NumPy may compute several at once, and round the last bits in another way than of one.
        probability = fitted.probability(match.similarity, 1 / 8, near)
        assert match.probability == pytest.approx(probability, rel=1e-5)
        far = fitted.far(match.similarity, near)
        assert match.false_matches == pytest.approx(7 * far, rel=1e-5)
    words = found.matches.to_text().splitlines()
    assert words[0] == "rank  similarity  probability  photo"
    assert f"{found.matches[0].probability:.1%}" in words[1]
    assert found.matches.to_dicts()[0]["probability"] == found.matches[0].probability
    frame = found.matches.to_dataframe()
    assert frame.false_matches.tolist() == [match.false_matches for match in found.matches]
    assert '<th scope="col">Probability</th>' in found.matches._repr_html_()


def test_search_with_far_leaves_out_matches_below_the_threshold(
    people: Path, gallery: Path, fitted: Calibration
) -> None:
    with Face2Vec(gallery) as engine:
        whole = engine.search(people / "00" / "0.jpg", k=8)[0].matches
        some = engine.search(people / "00" / "0.jpg", k=8, far=0.1)[0].matches
        fewer = engine.search(people / "00" / "0.jpg", k=8, far=0.1, min_similarity=0.95)[0].matches
    least = fitted.threshold(0.1)
    assert [m.photo for m in some] == [m.photo for m in whole if m.similarity >= least]
    assert len(some) < 8
    assert [m.photo for m in fewer] == [m.photo for m in whole if m.similarity >= 0.95]
    told = run("search", gallery, people / "00" / "0.jpg", "--far", "0.1", "--json")
    assert len(json.loads(told.stdout)["matches"]) == len(some)


def test_search_by_rate_without_a_calibration_is_refused(
    people: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.add(people / "00")
        with pytest.raises(CalibrationError, match="no calibration for the model 'tiny'"):
            engine.search(people / "00" / "0.jpg", far=1e-3)
        (found,) = engine.search(people / "00" / "0.jpg")
    assert found.matches[0].probability is None
    assert found.matches.to_text().startswith("rank  similarity  photo")


def test_answers_outside_of_what_was_fitted_say_why(
    people: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Face2Vec(gallery) as engine:
        (face,) = engine.encode(people / "00" / "0.jpg")
        parts = replace(face.parts, child=0.9, size=20.0)
        young = replace(face, parts=parts)
        found = engine.verify(young, young, far=0.1)
        assert found.outside == ("both may be children under 13", "one crop has only 20 pixels")
        assert found.to_dict()["outside"] == list(found.outside)
        assert engine.verify(face.embedding, face.embedding, far=0.1).outside == ()
        (answer,) = engine.search(young, k=8)
        told = {reason for match in answer.matches for reason in match.outside}
        assert "one crop has only 20 pixels" in told
        first = answer.matches[0]
        assert answer.matches.to_dicts()[0]["outside"] == list(first.outside)
        assert f"(less certain: {'; '.join(first.outside)})" in answer.matches.to_text()
        assert f"less certain: {'; '.join(first.outside)}" in answer.matches._repr_html_()
