"""Export, import and encode, through `Face2Vec` and the command line."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import needs, reads

from face2vec import Face2Vec
from face2vec.cli.main import main
from face2vec.errors import GalleryMismatchError, ModelError, SettingsError
from face2vec.exchange.formats import FORMATS, load_table
from face2vec.exchange.load import Imported
from face2vec.exchange.table import COLUMNS


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def photos(faces_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exchange") / "photos"
    folder.mkdir()
    for name in ("both.jpg", "copy of hopper.jpg", "hopper.jpg", "nobody.jpg", "broken.jpg"):
        shutil.copy(faces_folder / name, folder)
    return folder


@pytest.fixture(scope="module")
def built(photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exchange") / "gallery"
    with Face2Vec(folder, model=tiny_model) as engine:
        engine.add(photos)
        (grace,) = engine.enroll({"Grace": photos / "hopper.jpg"}).people
        engine.this_person(None, *(face for face in (1, 2, 3) if face not in grace.faces))
    return folder


@pytest.fixture
def gallery(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "gallery"))


def everything(engine: Face2Vec) -> list[tuple[Any, ...]]:
    """What a gallery has of each face, but its number."""
    gallery = engine._session.gallery()
    names = {face: one.name for one in engine.people() for face in one.faces}
    return sorted(
        (
            *(one.photo, one.copies, one.face.box, one.face.landmarks, one.face.confidence),
            *(one.face.quality, one.face.parts, one.face.embedding.tobytes()),
            names.get(one.face.id),
        )
        for one in reads(gallery).stored_faces(range(1, 50))
        if one.face.embedding is not None
    )


@pytest.mark.parametrize("suffix", FORMATS)
def test_exported_gallery_imports_as_it_was(gallery: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        needs("export", "pyarrow")
    file = tmp_path / f"faces{suffix}"
    with Face2Vec(gallery) as engine, Face2Vec(tmp_path / "again") as again:
        assert engine.export(file) == 3
        assert again.import_faces(file) == Imported(faces=3, photos=2, known=0, named=1)
        assert everything(again) == everything(engine)
        assert again._session.gallery().fingerprint == engine._session.gallery().fingerprint
        assert again.import_faces(file) == Imported(known=2)
        assert again.undo().startswith("enrolment of face ")
        assert again.check() == []


def test_exported_columns_have_the_values_of_the_gallery(
    gallery: Path, photos: Path, tmp_path: Path
) -> None:
    with Face2Vec(gallery) as engine:
        engine.export(tmp_path / "faces.npz")
        stored = reads(engine._session.gallery()).stored_faces([1, 2, 3])
        grace = engine.person("Grace")
    table, _ = load_table(tmp_path / "faces.npz")
    assert list(table.columns) == list(COLUMNS)
    assert table.columns["face_id"] == [1, 2, 3]
    assert table.columns["photo"] == [one.photo for one in stored]
    place = grace.faces[0] - 1
    assert table.columns["name"] == ["Grace" if n == place else None for n in range(3)]
    assert table.columns["confirmed"] == [True] * 3
    assert table.columns["copies"][place] == list(stored[place].copies)
    sha256 = hashlib.sha256((photos / "hopper.jpg").read_bytes()).hexdigest()
    assert table.columns["sha256"][place] == sha256
    assert (table.columns["width"][place], table.columns["height"][place]) == (512, 600)
    for n, one in enumerate(stored):
        assert [table.columns[k][n] for k in ("left", "bottom")] == [*one.face.box[::3]]
        assert table.columns["nose_y"][n] == one.face.landmarks[2][1]
        assert one.face.parts is not None
        assert table.columns["part_yaw"][n] == one.face.parts.yaw
        assert np.array_equal(table.embeddings[n], one.face.embedding)


def test_indexing_after_an_import_leaves_photos_that_are_there_unchanged(
    gallery: Path, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with Face2Vec(gallery) as engine, Face2Vec(tmp_path / "again") as again:
        engine.export(tmp_path / "faces.jsonl")
        again.import_faces(tmp_path / "faces.jsonl")
        done = again.add(photos)
        assert (done.unchanged, done.added, done.copies, done.faces) == (3, 1, 0, 0)
        (result,) = again.search(photos / "hopper.jpg", k=1)
        assert result.matches[0].similarity > 0.999


def write_lines(file: Path, *lines: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def vector(number: int, scale: float = 1.0) -> list[float]:
    row = np.random.default_rng(number).standard_normal(64)
    return list(scale * row / np.linalg.norm(row))


def test_embeddings_made_elsewhere_are_found_by_their_names(
    tiny_model: Path, tmp_path: Path
) -> None:
    table = write_lines(
        tmp_path / "faces.jsonl",
        {"photo": "ada", "name": "Ada", "embedding": vector(1, 20)},
        {"photo": "crowd", "embedding": vector(2)},
        {"photo": "crowd", "embedding": vector(3)},
        {"embedding": vector(4)},
    )
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        done = engine.import_faces(table, model=tiny_model)
        assert done == Imported(faces=4, photos=3, known=0, named=1)
        found = engine.search(np.array([vector(n) for n in (1, 2, 3, 4)], np.float32), k=1)
        best = [one.matches[0] for one in found]
        assert [one.photo for one in best] == [
            str(tmp_path / name) for name in ("ada", "crowd", "crowd", "row 4")
        ]
        assert min(one.similarity for one in best) > 0.9999
        assert [one.photo for one in engine.faces_of("Ada")] == [str(tmp_path / "ada")]
        assert not any(one.face.is_placed for one in best)
        assert engine.prune(force=True) == (0, 0)  # a name is no file that could be missing
        assert engine.import_faces(table, model=tiny_model) == Imported(known=3)
        assert engine.remove(tmp_path / "crowd") == (1, 2)
        assert engine.check() == []


def test_faces_without_a_place_are_left_out_of_a_search_by_pose(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    table = write_lines(tmp_path / "faces.jsonl", {"photo": "ada", "embedding": vector(1)})
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        engine.import_faces(table, model=tiny_model)
        engine.add(photos / "both.jpg")
        (result, _) = engine.search_pose(photos / "both.jpg", k=9)
        assert {Path(match.photo).name for match in result.matches} == {"both.jpg"}
        (ada,) = reads(engine._session.gallery()).stored_faces([1])
        with pytest.raises(SettingsError, match="imported without its place in a photo"):
            engine.search_pose(ada.face)


def test_photo_that_has_changed_since_it_was_exported_is_indexed_again(
    gallery: Path, tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(photos, tmp_path / "photos"))
    with Face2Vec(tmp_path / "first", model=tiny_model) as engine:
        engine.add(own / "hopper.jpg")
        engine.export(tmp_path / "faces.jsonl")
    shutil.copy(own / "nobody.jpg", own / "hopper.jpg")
    with Face2Vec(tmp_path / "again") as again:
        again.import_faces(tmp_path / "faces.jsonl")
        assert again.info()["faces"] == 1
        done = again.add(own / "hopper.jpg")
        assert (done.added, done.no_face, again.info()["faces"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        ([1.0, 2.0], r"shape \(2, 2\); those of the model have \(n, 64\)"),
        ([0.0] * 64, "the embedding of row 2 has length 0"),
        ([float("inf")] * 64, "the embedding of row 2 has length 0 or is not finite"),
    ],
)
def test_unusable_embedding_is_refused_and_nothing_is_stored(
    tiny_model: Path, tmp_path: Path, embedding: list[float], message: str
) -> None:
    first = vector(1) if len(embedding) == 64 else embedding
    table = write_lines(tmp_path / "f.jsonl", {"embedding": first}, {"embedding": embedding})
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:
        with pytest.raises(SettingsError, match=message):
            engine.import_faces(table, model=tiny_model)
        assert engine.info()["photos"] == 0


def test_box_that_is_none_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    table = write_lines(tmp_path / "f.jsonl", {"embedding": vector(1), "box": [5, 0, 4, 9]})
    with Face2Vec(tmp_path / "g") as engine, pytest.raises(SettingsError, match="the box of row 1"):
        engine.import_faces(table, model=tiny_model)


def test_import_needs_to_know_the_model_and_refuses_another(
    gallery: Path, tiny_model: Path, tmp_path: Path
) -> None:
    table = write_lines(tmp_path / "f.jsonl", {"embedding": vector(1)})
    with Face2Vec(gallery) as engine:
        with pytest.raises(SettingsError, match="nothing says which model made the embeddings"):
            engine.import_faces(table)
        with pytest.raises(
            GalleryMismatchError, match="was made with model tiny; this is model mini"
        ):
            engine.import_faces(table, model="mini")
        engine.export(tmp_path / "faces.jsonl")
        with pytest.raises(GalleryMismatchError, match=r"are by model tiny, not by mini; leave"):
            engine.import_faces(tmp_path / "faces.jsonl", model="mini")


def test_description_alone_names_the_model_by_the_hash_of_its_weights(
    tiny_model: Path, tmp_path: Path
) -> None:
    table = write_lines(tmp_path / "f.jsonl", {"embedding": vector(1)})
    described = tmp_path / "other.json"
    values = json.loads(tiny_model.with_suffix(".json").read_text(encoding="utf-8"))
    described.write_text(json.dumps(values), encoding="utf-8")
    with Face2Vec(tmp_path / "g") as engine:
        with pytest.raises(ModelError, match="does not say which weights it describes"):
            engine.import_faces(table, model=described)
        digest = hashlib.sha256(tiny_model.read_bytes()).hexdigest()
        described.write_text(json.dumps({**values, "sha256": digest}), encoding="utf-8")
        assert engine.import_faces(table, model=described).faces == 1
    with Face2Vec(tmp_path / "g", model=tiny_model) as engine:  # the same weights
        assert engine.search(np.array(vector(1), np.float32), k=1)[0].matches[0].similarity > 0.99


def test_encode_command_prints_a_line_for_each_photo(tiny_model: Path, photos: Path) -> None:
    done = run("encode", photos, "--model", tiny_model, "--json")
    assert done.exit_code == 1
    told = {Path(line["photo"]).name: line for line in map(json.loads, done.stdout.splitlines())}
    assert list(told) == sorted(path.name for path in photos.iterdir())
    assert told["broken.jpg"]["error"] == "truncated"
    assert told["broken.jpg"]["faces"] == told["nobody.jpg"]["faces"] == []
    assert told["nobody.jpg"]["error"] is None
    assert "broken.jpg: truncated" in done.stderr
    with Face2Vec(model=tiny_model) as engine:
        faces = engine.encode(photos / "both.jpg")
        digest = engine.encoder.model.fingerprint.digest
    both = told["both.jpg"]
    assert (both["width"], both["height"], both["model"]) == (1024, 600, "tiny")
    assert both["model_digest"] == digest
    assert [face["box"] for face in both["faces"]] == [list(face.box) for face in faces]
    for one, face in zip(both["faces"], faces, strict=True):
        assert np.array_equal(np.array(one["embedding"], np.float32), face.embedding)
        places = {"box", "landmarks", "time", "track"}
        assert set(one) == {*places, "confidence", "quality", "parts", "embedding"}
        assert one["time"] is one["track"] is None


def test_encode_command_prints_text(tiny_model: Path, photos: Path) -> None:
    words = ("--model", tiny_model)
    done = run("encode", photos / "hopper.jpg", photos / "nobody.jpg", *words)
    assert done.exit_code == 0
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{photos / 'hopper.jpg'}, face at ")
    assert done.stderr == f"{photos / 'nobody.jpg'}: no face found\n"


def test_export_and_import_commands(gallery: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces.csv"
    assert run("export", gallery, out).stderr == f"3 faces written to {out}\n"
    done = run("import", tmp_path / "again", out, "--json")
    assert json.loads(done.stdout) == {"faces": 3, "photos": 2, "known": 0, "named": 1, "marks": 0}
    assert done.stderr == "3 faces of 2 photos added, 1 of them named; 0 photos known\n"
    wrong = run("import", tmp_path / "again", tmp_path / "faces.txt")
    assert (wrong.exit_code, "must end in one of" in wrong.stderr) == (3, True)


def test_exported_names_of_any_bytes_stay_readable(gallery: Path, tmp_path: Path) -> None:
    needs("export", "pyarrow")
    with Face2Vec(gallery) as engine:
        engine.export(tmp_path / "faces.npz")
    table, made_with = load_table(tmp_path / "faces.npz")
    assert made_with is not None
    odd = replace(table, columns={**table.columns, "photo": ["/a\udcff.jpg"] * 3})
    for suffix, expected in ((".csv", "/a\udcff.jpg"), (".parquet", "/a\\udcff.jpg")):
        FORMATS[suffix].write(tmp_path / f"odd{suffix}", [odd], made_with)
        again, _ = FORMATS[suffix].read(tmp_path / f"odd{suffix}")
        assert again.columns["photo"] == [expected] * 3
