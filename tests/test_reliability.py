"""How true false accept rates are in a gallery, estimated without labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from drawn_embeddings import DIMENSION, SHARED, calibrated, drawn, strangers

from face2vec import Face2Vec
from face2vec.calibration import Calibration
from face2vec.cli.main import main
from face2vec.errors import CalibrationError
from face2vec.reliability import MOST, KindRate, Reliability, reliability
from face2vec.report.reliability import reliability_remarks, reliability_text
from face2vec.types import Face, QualityParts

POINTS = ((1.0, 1.0), (2.0, 1.0), (1.5, 2.0), (1.0, 3.0), (2.0, 3.0))
PARTS = QualityParts(1.0, 120.0, 0.3, 0.0, 0.0, 0.0, 0.0, 0.0)
DECAY = 0.3
# (share of the embedding, decay) of groups of people, see test_cohort.py.
GROUPS = ((0.2, DECAY), (0.35, 0.65), (0.5, 1.0))


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """Fitted on people of one group, and without knowledge of any other."""
    return calibrated(None, DECAY)


def faces_of(embeddings: np.ndarray, parts: QualityParts | None = PARTS) -> list[Face]:
    return [Face((0.0, 0.0, 4.0, 4.0), POINTS, 1.0, one, parts=parts) for one in embeddings]


def looked_at(calibration: Calibration, faces: list[Face], far: float = 1e-3) -> Reliability:
    order = np.random.default_rng(0).permutation(len(faces))
    mixed = [faces[n] for n in order]
    embeddings = np.stack([face.embedding for face in mixed if face.embedding is not None])
    return reliability(calibration.among(embeddings), mixed, len(faces), far)


def counted(calibration: Calibration, faces: np.ndarray, far: float) -> float:
    rows, columns = np.triu_indices(len(faces), 1)
    crowded = calibration.crowded(faces)
    stated = calibration.far(strangers(faces), (crowded[rows] + crowded[columns]) / 2)
    return float((stated <= far).mean() / far)


def of_kind(found: Reliability, kind: str) -> dict[str, KindRate]:
    return {one.value: one for one in found.kinds if one.kind == kind}


@pytest.mark.parametrize(("shared", "decay"), GROUPS)
@pytest.mark.parametrize("photos", [1, 4])
def test_rates_are_those_that_labels_would_show(
    calibration: Calibration, shared: float, decay: float, photos: int
) -> None:
    faces = drawn(1200 // photos, photos, shared, 1, 20, decay)
    fresh = drawn(2000, 1, shared, 1, 21, decay)[:, 0]
    gallery = np.random.default_rng(0).permutation(faces.reshape(-1, DIMENSION))
    here = calibration.among(gallery)
    everybody, *_ = reliability(here, faces_of(gallery), 1200).kinds
    assert (everybody.kind, everybody.value, everybody.faces) == ("all", "all", 1200)
    assert everybody.model_alone is not None
    assert 0.5 <= everybody.model_alone / counted(calibration, fresh, 1e-3) <= 2
    assert everybody.here is not None
    assert 1 / 3 <= everybody.here / counted(here, fresh, 1e-3) <= 3
    assert 0.4 <= counted(here, fresh, 1e-3) <= 2


def test_intervals_hold_the_rate_and_are_wider_for_fewer_faces(calibration: Calibration) -> None:
    widths = []
    for people in (150, 1200):
        everybody = looked_at(
            calibration, faces_of(drawn(people, 1, 0.2, 0, 3, DECAY)[:, 0])
        ).kinds[0]
        assert everybody.low is not None
        assert everybody.here is not None
        assert everybody.high is not None
        assert everybody.low <= everybody.here <= everybody.high
        widths.append(everybody.high - everybody.low)
    assert widths[0] > 1.5 * widths[1]


def test_kinds_of_faces_are_told_apart(calibration: Calibration) -> None:
    plain = faces_of(drawn(700, 1, SHARED[0], 0, 4, DECAY)[:, 0])
    alike = drawn(200, 1, 0.45, 2, 5, DECAY)[:, 0]
    profile = faces_of(alike, replace(PARTS, yaw=-60.0, size=40.0))
    few = faces_of(drawn(30, 1, SHARED[0], 0, 6, DECAY)[:, 0], replace(PARTS, yaw=30.0, child=0.9))
    found = looked_at(calibration, plain + profile + few)
    pose = of_kind(found, "pose")
    straight = pose["turned by less than 20°"]
    turned = pose["turned by 20° to 45°"]
    side = pose["turned by 45° or more"]
    assert (straight.faces, turned.faces, side.faces) == (700, 30, 200)
    assert straight.model_alone is not None
    assert side.model_alone is not None
    assert side.model_alone > 5 * straight.model_alone
    assert side.is_too_low
    assert not straight.is_too_low
    assert (turned.few, turned.here, turned.low) == (True, None, None)
    size = of_kind(found, "size")
    assert {value: one.faces for value, one in size.items()} == {
        "less than 50 pixels": 200, "100 pixels or more": 730,
    }  # fmt: skip
    assert {value: one.faces for value, one in of_kind(found, "looks").items()} == {
        "child under 13": 30
    }
    near = of_kind(found, "neighbourhood")
    assert sum(one.faces for one in near.values()) == 930
    low, _, high = (one.model_alone for one in near.values())
    assert low is not None
    assert high is not None
    assert low < high


def test_what_may_be_no_face_is_a_kind_of_its_own(calibration: Calibration) -> None:
    plain = faces_of(drawn(300, 1, SHARED[0], 0, 4, DECAY)[:, 0])
    others = drawn(100, 1, SHARED[2], 2, 5, DECAY)[:, 0]
    hands = faces_of(others, replace(PARTS, face=0.05, yaw=-60.0, sharpness=0.1))
    blurred = faces_of(drawn(100, 1, SHARED[0], 0, 6, DECAY)[:, 0], replace(PARTS, sharpness=0.1))
    found = looked_at(calibration, plain + hands + blurred)
    assert found.kinds[0].faces == 500
    assert {value: one.faces for value, one in of_kind(found, "pose").items()} == {
        "turned by less than 20°": 400
    }
    looks = of_kind(found, "looks")
    assert {value: one.faces for value, one in looks.items()} == {
        "blurred": 100, "may be no face": 100,
    }  # fmt: skip
    assert looks["may be no face"].is_too_low
    assert not looks["blurred"].is_too_low
    assert sum(one.faces for one in of_kind(found, "neighbourhood").values()) == 400


def test_faces_without_parts_have_no_pose(calibration: Calibration) -> None:
    found = looked_at(calibration, faces_of(drawn(300, 1, 0.2, 0, 7, DECAY)[:, 0], None))
    assert {one.kind for one in found.kinds} == {"all", "neighbourhood"}


def test_at_most_some_of_a_kind_are_compared(calibration: Calibration) -> None:
    faces = faces_of(drawn(MOST + 500, 1, 0.2, 0, 8, DECAY)[:, 0])
    whole, some = looked_at(calibration, faces), reliability(calibration, faces[:MOST], MOST)
    assert whole.kinds[0].faces == MOST + 500
    again = reliability(calibration, faces, MOST + 500)
    assert again.kinds[0].model_alone == some.kinds[0].model_alone


def test_few_people_say_nothing(calibration: Calibration) -> None:
    family = drawn(4, 60, 0.2, 0, 9, DECAY).reshape(-1, DIMENSION)
    found = looked_at(calibration, faces_of(family))
    assert found.cohort == 0
    assert "too few people" in next(reliability_remarks(found))
    with pytest.raises(CalibrationError, match="no threshold is known"):
        reliability(calibration, faces_of(family[:2]), 2, 1e-9)
    with pytest.raises(CalibrationError, match="two faces or more"):
        reliability(calibration, faces_of(family[:1]), 1)


def test_calibration_on_few_pairs_is_refused(calibration: Calibration) -> None:
    few = replace(calibration, fars=calibration.fars[:17], thresholds=calibration.thresholds[:17])
    with pytest.raises(CalibrationError, match=r"too few to say .* --people PEOPLE"):
        reliability(few, faces_of(drawn(100, 1, 0.2, 0, 9)[:, 0]), 100, 0.1)


def test_text_has_a_row_for_each_kind_and_names_what_is_off() -> None:
    kinds = (
        KindRate("all", "all", 1234, 2.04, 1.04, 0.94, 1.26, False),
        KindRate("pose", "turned by 45° or more", 200, 9.0, 3.0, 2.1, 4.0, False),
        KindRate("looks", "covered", 3, None, None, None, None, True),
    )
    found = Reliability(1e-3, 1234, 900, kinds)
    lines = reliability_text(found).splitlines()
    assert lines[0].startswith("1,234 faces.")
    assert lines[4].split() == ["all", "faces", "1,234", "2.0", "1.0", "(0.9", "to", "1.3)"]
    assert lines[5].endswith("9.0                 3.0 (2.1 to 4.0)")
    assert lines[6].endswith("too few             too few")
    assert list(reliability_remarks(replace(found, kinds=kinds[:1]))) == [
        "Pose, size and looks of these faces are not known."
    ]
    near = KindRate("neighbourhood", "middle third", 200, 9.0, 3.0, 2.1, 4.0, False)
    more = replace(found, faces=9000, kinds=(*kinds, near))
    assert reliability_text(more).startswith("9,000 faces, 1,234 of them drawn at random.")
    assert list(reliability_remarks(more)) == list(reliability_remarks(found))
    assert list(reliability_remarks(found)) == [
        "Too few faces to tell: looks: covered.",
        "Strangers are accepted more than twice as often as stated: pose: turned by 45° or more.",
    ]
    assert found.figures()["kinds"][0]["here"] == 1.04


# At the command line


@pytest.fixture
def gallery(tmp_path: Path, calibration: Calibration) -> Path:
    """A gallery of 400 people of a dense group, a photo each."""
    model = tmp_path / "drawn.json"
    facts = {"sha256": "ab" * 32, "dimension": DIMENSION, "input_size": 112}
    model.write_text(json.dumps(facts | {"alignment": "landmarks", "template": "face2vec"}))
    faces = drawn(400, 1, SHARED[1], 1, 10, DECAY)[:, 0]
    np.savez(tmp_path / "faces.npz", photo=[f"p{n}" for n in range(400)], embedding=faces)
    with Face2Vec(tmp_path / "gallery") as engine:
        engine.import_faces(tmp_path / "faces.npz", model=model)
        engine.calibrate(replace(calibration, weights="ab" * 32))
    return tmp_path / "gallery"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_calibrate_command_needs_no_labels(gallery: Path) -> None:
    done = run("calibrate", gallery)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("400 faces.")
    with Face2Vec(gallery) as engine:
        found = engine.reliability()
        assert done.stdout.rstrip("\n") == reliability_text(found)
    machine = run("calibrate", gallery, "--json", "--far", "0.01")
    facts = json.loads(machine.stdout)
    assert (facts["far"], facts["faces"], facts["kinds"][0]["faces"]) == (0.01, 400, 400)
    assert facts["kinds"][0]["here"] < facts["kinds"][0]["model_alone"]


def test_calibrate_command_changes_nothing_without_people(gallery: Path) -> None:
    def content() -> dict[str, bytes]:
        return {str(f): f.read_bytes() for f in gallery.rglob("*") if f.is_file()}

    run("info", gallery)
    before = content()
    assert run("calibrate", gallery).exit_code == 0
    assert content() == before


def test_calibrate_command_wants_a_gallery(tmp_path: Path, gallery: Path) -> None:
    assert run("calibrate").exit_code == 2
    assert run("calibrate", gallery, "--data", "x").exit_code == 2
    refused = run("calibrate", gallery, "--out", tmp_path / "c.json")
    assert refused.exit_code == 2
    assert "need --people" in refused.stderr
    assert "deprecated" not in refused.stderr
    both = run("calibrate", gallery, "--people", tmp_path, "--gallery", gallery)
    assert (both.exit_code, "without --gallery" in both.stderr) == (2, True)
    for more in (("--json",), ("--far", "0.1")):
        assert run("calibrate", gallery, "--people", tmp_path, *more).exit_code == 2
    done = run("calibrate", tmp_path)
    assert done.exit_code == 3
    assert str(tmp_path) in done.stderr
    assert run("calibrate", gallery, "--far", "1e-9").exit_code == 3
