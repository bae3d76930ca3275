"""Photos in object storage, on a real HTTP server that speaks S3."""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import object_server
import pytest
from helpers import Started, needs, posix_only
from helpers import tiny_model as tiny_model_file
from object_server import BUCKET, ObjectServer

from face2vec import (
    AddressNotAllowedError,
    Face2Vec,
    GalleryError,
    MissingExtraError,
    PhotoError,
    SettingsError,
    StorageError,
    open_photo,
    samples,
)
from face2vec.files import is_object, object_address
from face2vec.photos import objects
from face2vec.photos.allowed import allow, allowed
from face2vec.photos.discover import find_photos
from face2vec.photos.storage import opened, status_of
from face2vec.watch import watch

ROOT = f"s3://{BUCKET}/family"
NAMES = ("person-000/0.jpg", "person-001/0.jpg", "z #1%20.jpg", "été 2024/two people?.jpg")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("drawn")
    samples.write(folder, people=3, photos=2, groups=0)
    return [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]


@pytest.fixture(scope="module")
def running() -> Iterator[ObjectServer]:
    needs("test", "moto", "s3fs", "flask")
    with object_server.running() as server:
        yield server


@pytest.fixture
def server(
    running: ObjectServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ObjectServer]:
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no config"))
    monkeypatch.setenv("FACE2VEC_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("FACE2VEC_ALLOW", f"s3://{BUCKET}")
    monkeypatch.setattr(objects, "WAIT_SECONDS", 0.0)
    running.broken.clear()
    running.refused = running.listings_left = None
    yield running
    running.refused = running.listings_left = None
    running.broken.clear()
    for entry in running.client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
        running.delete(entry["Key"])


@pytest.fixture
def bucket(server: ObjectServer, drawn: list[bytes]) -> ObjectServer:
    for name, data in zip(NAMES, drawn, strict=False):
        server.put(f"family/{name}", data)
    server.put("family/notes.txt", b"not a photo")
    server.put("family/person-000/", b"")
    server.put("other/9.jpg", drawn[4])
    server.requests.clear()
    return server


@pytest.fixture
def engine(tiny_model: Path, tmp_path: Path) -> Iterator[Face2Vec]:
    with Face2Vec(tmp_path / "gallery", model=tiny_model, runtime="onnxruntime") as engine:
        yield engine


@pytest.fixture
def received(
    bucket: ObjectServer,
    engine: Face2Vec,
    drawn: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Face2Vec:
    """A gallery with objects and one file, on the machine of a user who has allowed nothing."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "local.jpg").write_bytes(drawn[4])
    engine.add(ROOT, tmp_path / "here")
    monkeypatch.setenv("FACE2VEC_CONFIG", str(tmp_path / "config of somebody else"))
    monkeypatch.delenv("FACE2VEC_ALLOW")
    monkeypatch.setattr("face2vec.photos.allowed._warned", set())
    bucket.requests.clear()
    return engine


def rows(gallery: Path) -> dict[str, list[Any]]:
    with sqlite3.connect(gallery / "gallery.sqlite") as connection:
        found = {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in ("roots", "contents", "photos", "faces", "embeddings", "journal")
        }
    connection.close()
    return found


def addresses(engine: Face2Vec) -> list[str]:
    return [one.photo for one in engine.photos()]


def test_build_reads_each_object_once_and_next_one_none(
    bucket: ObjectServer, engine: Face2Vec, drawn: list[bytes]
) -> None:
    done = engine.add(ROOT)
    assert (done.photos, done.added, done.unreadable) == (4, 4, ())
    assert addresses(engine) == [f"{ROOT}/{name}" for name in NAMES]
    assert sorted(bucket.read()) == sorted(f"family/{name}" for name in NAMES)

    again = engine.add(ROOT)
    assert (again.unchanged, again.added) == (4, 0)
    assert bucket.read() == []


def test_build_equals_one_from_files(
    bucket: ObjectServer, engine: Face2Vec, drawn: list[bytes], tiny_model: Path, tmp_path: Path
) -> None:
    engine.add(ROOT)
    for name, data in zip(NAMES, drawn, strict=False):
        path = tmp_path / "family" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with Face2Vec(tmp_path / "local", model=tiny_model, runtime="onnxruntime") as local:
        local.add(tmp_path / "family")
        with local.snapshot() as there, engine.snapshot() as here:
            for one, other in zip(here, there, strict=True):
                assert np.array_equal(one[0], other[0])
                assert np.array_equal(one[1], other[1])
            hashes = [
                now.connection.execute("SELECT sha256 FROM contents ORDER BY id").fetchall()
                for now in (here, there)
            ]
            assert hashes[0] == hashes[1]


def test_changed_object_is_read_again_and_only_that(
    bucket: ObjectServer, engine: Face2Vec, drawn: list[bytes]
) -> None:
    engine.add(ROOT)
    bucket.read()
    bucket.put(f"family/{NAMES[1]}", drawn[5])
    done = engine.add(ROOT)
    assert (done.added, done.unchanged) == (1, 3)
    assert bucket.read() == [f"family/{NAMES[1]}"]
    with engine.snapshot() as now:
        (face,) = now.faces_of(f"{ROOT}/{NAMES[1]}").records()
    assert face.photo == f"{ROOT}/{NAMES[1]}"


def test_change_of_the_same_size_in_the_same_second_is_seen(
    server: ObjectServer, engine: Face2Vec, drawn: list[bytes]
) -> None:
    data = drawn[0]
    server.put("family/a.jpg", data)
    server.put("family/b.jpg", data[:-1] + bytes([data[-1] ^ 1]))
    one, other = (status_of(f"{ROOT}/{name}.jpg") for name in "ab")
    assert one.size == other.size
    assert one.ctime_ns != other.ctime_ns


def test_listing_and_object_have_one_status(bucket: ObjectServer) -> None:
    for photo in find_photos(ROOT):
        assert photo.status == status_of(photo.place)


def test_deleted_object_stays_until_it_is_pruned(bucket: ObjectServer, engine: Face2Vec) -> None:
    engine.add(ROOT)
    bucket.delete(f"family/{NAMES[2]}")
    assert engine.add(ROOT).unchanged == 3
    assert f"{ROOT}/{NAMES[2]}" in addresses(engine)
    assert engine.prune().photos == 1
    assert addresses(engine) == [f"{ROOT}/{name}" for name in NAMES if name != NAMES[2]]


def test_pruning_lists_and_does_not_ask_for_each_object(
    bucket: ObjectServer, engine: Face2Vec
) -> None:
    engine.add(ROOT)
    bucket.requests.clear()
    assert engine.prune().photos == 0
    assert {method for method, _, listed in bucket.requests if not listed} == set()


def test_pruning_refuses_an_empty_folder_and_a_store_that_does_not_answer(
    bucket: ObjectServer, engine: Face2Vec
) -> None:
    engine.add(ROOT)
    bucket.refused = "403 Forbidden"
    with pytest.raises(StorageError, match="nothing was removed"):
        engine.prune()
    bucket.refused = None
    for name in NAMES:
        bucket.delete(f"family/{name}")
    bucket.delete("family/notes.txt")
    with pytest.raises(GalleryError, match=f"{ROOT}, which held photos"):
        engine.prune()
    assert engine.prune(force=True).photos == 4


def test_broken_connection_is_tried_again(bucket: ObjectServer, engine: Face2Vec) -> None:
    bucket.broken[f"family/{NAMES[0]}"] = 1
    assert engine.add(ROOT).added == 4
    assert bucket.read().count(f"family/{NAMES[0]}") == 2


def test_connection_that_keeps_breaking_makes_photo_unreadable_until_the_next_build(
    bucket: ObjectServer, engine: Face2Vec
) -> None:
    bucket.broken[f"family/{NAMES[0]}"] = 1000
    done = engine.add(ROOT)
    assert done.added == 3
    ((photo, reason),) = done.unreadable
    assert (photo, reason) == (f"{ROOT}/{NAMES[0]}", "cannot be read")
    bucket.broken.clear()
    assert engine.add(ROOT).added == 1


def test_broken_and_empty_objects_are_unreadable_with_their_reasons(
    server: ObjectServer, engine: Face2Vec, drawn: list[bytes]
) -> None:
    server.put("family/broken.jpg", drawn[0][:300])
    server.put("family/empty.jpg", b"")
    server.put("family/text.jpg", b"no photo")
    reasons = {Path(photo).name: reason for photo, reason in engine.add(ROOT).unreadable}
    assert reasons == {
        "broken.jpg": "truncated",
        "empty.jpg": "empty file",
        "text.jpg": "not a photo",
    }


def test_missing_object_is_missing(bucket: ObjectServer) -> None:
    with pytest.raises(PhotoError, match="missing"):
        open_photo(f"{ROOT}/not there.jpg")
    with pytest.raises(PhotoError, match="a folder"):
        open_photo(f"{ROOT}/person-000")


def test_search_verify_and_pages_read_objects(
    bucket: ObjectServer, engine: Face2Vec, tmp_path: Path
) -> None:
    engine.add(ROOT)
    (result,) = engine.search(f"{ROOT}/{NAMES[0]}")
    assert result.matches[0].photo == f"{ROOT}/{NAMES[0]}"
    assert result.matches[0].similarity == pytest.approx(1, abs=1e-5)
    from face2vec.report.thumbnails import placeholder, thumbnail

    box = result.matches[0].face.box
    picture = thumbnail(result.matches[0].photo, box)
    assert picture.tobytes() != placeholder("photo not found", picture.width).tobytes()
    result.save_html(tmp_path / "page.html")
    assert NAMES[0] in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert engine.export(tmp_path / "faces.jsonl") == engine.info()["faces"]


def test_exported_table_is_imported_with_addresses(
    bucket: ObjectServer, engine: Face2Vec, tiny_model: Path, tmp_path: Path
) -> None:
    engine.add(ROOT)
    engine.export(tmp_path / "faces.jsonl")
    with Face2Vec(tmp_path / "other", model=tiny_model, runtime="onnxruntime") as other:
        other.import_faces(tmp_path / "faces.jsonl")
        assert addresses(other) == addresses(engine)
        bucket.read()
        assert other.add(ROOT).unchanged == 4
        assert bucket.read() == []


def test_photos_of_people_are_copied_from_objects_and_not_linked(
    bucket: ObjectServer, engine: Face2Vec, drawn: list[bytes], tmp_path: Path
) -> None:
    engine.add(ROOT)
    with engine.snapshot() as now:
        (face,) = now.faces_of(f"{ROOT}/{NAMES[0]}").records()
    engine.name_face(face.face.id or 0, "Ada")
    ((_, reason),) = engine.export_people(tmp_path / "links", link=True).refused
    assert "cannot be linked" in reason
    assert engine.export_people(tmp_path / "people").written == 1
    assert (tmp_path / "people" / "Ada" / "0.jpg").read_bytes() == drawn[0]


def test_sidecars_of_objects_go_to_a_folder_only(
    bucket: ObjectServer, engine: Face2Vec, tmp_path: Path
) -> None:
    needs("xmp", "defusedxml")
    engine.add(ROOT)
    with engine.snapshot() as now:
        (face,) = now.faces_of(f"{ROOT}/{NAMES[0]}").records()
    engine.name_face(face.face.id or 0, "Ada")
    ((_, reason),) = engine.export_xmp().refused
    assert "give a folder for the sidecars" in reason
    (written,) = engine.export_xmp(tmp_path / "xmp").written
    assert written == str(tmp_path / "xmp" / f"{NAMES[0]}.xmp")


def test_remove_takes_an_object_and_a_folder(bucket: ObjectServer, engine: Face2Vec) -> None:
    engine.add(ROOT)
    assert engine.remove(f"{ROOT}/{NAMES[3]}").photos == 1
    assert engine.remove(f"{ROOT}/person-000/").photos == 1
    assert addresses(engine) == [f"{ROOT}/{NAMES[1]}", f"{ROOT}/{NAMES[2]}"]


def test_people_are_enrolled_from_folders_of_objects(
    bucket: ObjectServer, engine: Face2Vec
) -> None:
    done = engine.enroll({"Ada": f"{ROOT}/{NAMES[0]}", "Bea": f"{ROOT}/person-001"})
    assert [(person.name, len(person.faces)) for person in done.people] == [("Ada", 1), ("Bea", 1)]
    assert set(done.faces) == {f"{ROOT}/{NAMES[0]}", f"{ROOT}/{NAMES[1]}"}
    named = engine.enroll(ROOT)
    assert [person.name for person in named.people] == ["person-000", "person-001", "été 2024"]


def test_patterns_and_ignore_file_leave_objects_out(
    bucket: ObjectServer, drawn: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("@eaDir/t.jpg", ".hidden/1.jpg", "scans/1.jpg", "scans/keep/2.jpg", "old/3.jpg"):
        bucket.put(f"family/{name}", drawn[0])
    bucket.put("family/.face2vecignore", b"old/\n")
    bucket.put("family/person-001/.face2vecignore", b"*.jpg\n")
    left_out: Counter[str] = Counter()
    found = find_photos(ROOT, exclude=["scans/"], include=["nothing"], left_out=left_out)
    assert [photo.name for photo in found] == list(NAMES)
    assert left_out == {"@eaDir/": 1, "scans/": 1, "old/": 1}
    assert "person-001/.face2vecignore is not used" in caplog.text
    taken = find_photos(ROOT, exclude=["scans/"], include=["scans/"])
    assert "scans/keep/2.jpg" in [photo.name for photo in taken]


def test_raw_file_with_a_jpeg_is_left_out(server: ObjectServer, drawn: list[bytes]) -> None:
    needs("raw", "rawpy")
    for name in ("IMG_1.CR2", "IMG_1.x.png", "IMG_1.jpg", "IMG_2.CR2", "a/IMG_1.CR2", "a/b.jpg"):
        server.put(f"family/{name}", drawn[0])
    paired: Counter[str] = Counter()
    found = [photo.name for photo in find_photos(ROOT, paired=paired)]
    assert found == ["IMG_1.jpg", "IMG_1.x.png", "IMG_2.CR2", "a/IMG_1.CR2", "a/b.jpg"]
    assert paired == {"RAW": 1}
    both = [photo.name for photo in find_photos(ROOT, pairs="both")]
    assert both[:3] == ["IMG_1.CR2", "IMG_1.jpg", "IMG_1.x.png"]


def test_lists_hold_addresses_beside_paths(
    bucket: ObjectServer, drawn: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "here.jpg").write_bytes(drawn[5])
    lines = [f"{ROOT}/{NAMES[2]}", "here.jpg", f"{ROOT}/person-001/"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    found = [photo.place for photo in find_photos(f"@{tmp_path / 'list.txt'}")]
    assert found == [f"{ROOT}/{NAMES[2]}", str(tmp_path / "here.jpg"), f"{ROOT}/{NAMES[1]}"]


def test_object_that_two_sources_have_is_found_once(bucket: ObjectServer) -> None:
    found = [photo.place for photo in find_photos([f"{ROOT}/{NAMES[1]}", ROOT])]
    assert sorted(found) == sorted(f"{ROOT}/{name}" for name in NAMES)


def test_work_begins_before_a_bucket_is_listed_to_its_end(
    bucket: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PAGE", 2)
    found = find_photos(ROOT)
    assert next(found).name == NAMES[0]
    seen = len([listed for _, _, listed in bucket.requests if listed])
    assert [photo.name for photo in found] == list(NAMES[1:])
    assert len([listed for _, _, listed in bucket.requests if listed]) == seen + 1


def test_store_that_stops_listing_keeps_what_was_read(
    bucket: ObjectServer, engine: Face2Vec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PAGE", 3)
    bucket.listings_left = 3  # two to look at the address, and the first page
    with pytest.raises(StorageError, match="what was read is kept"):
        engine.add(ROOT)
    assert addresses(engine) == [f"{ROOT}/{name}" for name in NAMES[:1]]
    bucket.listings_left = None
    done = engine.add(ROOT)
    assert (done.unchanged, done.added) == (1, 3)


def test_wrong_addresses_are_refused_without_their_passwords(
    bucket: ObjectServer, engine: Face2Vec, tmp_path: Path
) -> None:
    engine.add(ROOT)
    secrets = (
        "s3://KEY:hidden@bucket/a.jpg",
        "s3://KEY:hid/den@bucket/a.jpg",
        "s3://bucket/a.jpg?X-Amz-Signature=hidden",
    )
    for secret in secrets:
        for call in (engine.add, engine.remove, engine.search, engine.encode, engine.readmit):
            with pytest.raises(SettingsError, match="password or a signature") as caught:
                call(secret)
            assert "hid" not in str(caught.value)
    (tmp_path / "list.txt").write_text(secrets[0], encoding="utf-8")
    with pytest.raises(SettingsError, match="password") as caught:
        engine.add(f"@{tmp_path / 'list.txt'}")
    assert "hidden" not in str(caught.value)
    for wrong, message in {
        f"s3://{BUCKET}/nothing": "no object and no folder",
        "s3://": "names no bucket",
        "unknown-kind://bucket/a": "no kind of address",
    }.items():
        with pytest.raises(SettingsError, match=message):
            engine.add(wrong)
    with pytest.raises(SettingsError, match="a gallery is a folder"):
        Face2Vec(ROOT)
    with pytest.raises(SettingsError, match="does not tell of its changes"):
        watch(engine, ROOT)


def test_received_gallery_requests_nothing_and_says_what_allows_it(
    bucket: ObjectServer, received: Face2Vec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from face2vec.report.thumbnails import placeholder, thumbnail

    photo = f"{ROOT}/{NAMES[0]}"
    command = f"face2vec allow {ROOT}/person-000$"
    with received.snapshot() as now:
        (face,) = now.faces_of(photo).records()
        embedding = now.stored_faces([face.face.id or 0])[0].face.embedding
    (result,) = received.search(np.asarray(embedding), k=9)
    assert result.matches[0].photo == photo
    picture = thumbnail(photo, face.face.box)
    assert picture.tobytes() == placeholder("address not allowed", picture.width).tobytes()
    result.save_html(tmp_path / "page.html")
    assert caplog.text.count("person-000 is not allowed") == len(caplog.records) == 1
    received.name_face(face.face.id or 0, "Ada")
    for call in (
        lambda: open_photo(photo),
        lambda: received.search(photo),
        lambda: received.encode(photo),
        lambda: list(received.encode_photos(photo)),
        lambda: received.mark_face(photo, (0, 0, 20, 20)),
        lambda: received.import_xmp(photo),
        lambda: received.readmit(photo),
        lambda: next(find_photos(photo)),
    ):
        with pytest.raises(AddressNotAllowedError, match=command):
            call()
    for call in (received.prune, lambda: list(find_photos(ROOT))):
        with pytest.raises(AddressNotAllowedError, match="is not allowed on this machine"):
            call()
    ((_, reason),) = received.export_people(tmp_path / "people").refused
    assert "is not allowed" in reason
    assert bucket.requests == []
    assert len(addresses(received)) == 5


def test_upgrade_of_a_received_gallery_stops_and_drops_nothing(
    bucket: ObjectServer, received: Face2Vec, tmp_path: Path
) -> None:
    other = tiny_model_file(tmp_path / "other.onnx", seed=8)
    with pytest.raises(AddressNotAllowedError, match="face2vec allow"):
        received.upgrade(other, drop_missing=True)
    assert bucket.requests == []
    assert len(addresses(received)) == 5
    allow([ROOT])
    assert received.upgrade(other, drop_missing=True).switched
    assert len(addresses(received)) == 5


def test_lists_and_tables_name_only_what_is_allowed(
    bucket: ObjectServer, received: Face2Vec, drawn: list[bytes], tmp_path: Path
) -> None:
    received.export(tmp_path / "faces.jsonl")
    (tmp_path / "list.txt").write_text(f"{ROOT}/{NAMES[2]}", encoding="utf-8")
    (tmp_path / "people.csv").write_text(f"name,photo\nAda,{ROOT}/{NAMES[0]}", encoding="utf-8")
    for call in (
        lambda: received.add(f"@{tmp_path / 'list.txt'}"),
        lambda: received.enroll(tmp_path / "people.csv"),
    ):
        with pytest.raises(AddressNotAllowedError, match="face2vec allow"):
            call()
    with Face2Vec(tmp_path / "imported", model=received.encoder.model.path) as other:
        other.import_faces(tmp_path / "faces.jsonl")
    assert bucket.requests == []


def test_what_is_added_here_may_be_read_here_and_no_more(
    bucket: ObjectServer, received: Face2Vec
) -> None:
    received.add(f"{ROOT}/person-000")
    assert allowed() == (f"{ROOT}/person-000",)
    assert open_photo(f"{ROOT}/{NAMES[0]}").width > 0
    with pytest.raises(AddressNotAllowedError):
        open_photo(f"{ROOT}/{NAMES[1]}")
    received.enroll({"Bea": f"{ROOT}/{NAMES[1]}"})
    assert allowed()[1:] == (f"{ROOT}/{NAMES[1]}",)
    assert open_photo(f"{ROOT}/{NAMES[1]}").width > 0


def test_service_shows_a_received_gallery_without_its_objects(
    bucket: ObjectServer, received: Face2Vec, tmp_path: Path
) -> None:
    needs("server", "fastapi", "httpx", "jinja2", "multipart", "prometheus_client")
    import serving

    (tmp_path / "photos").mkdir()
    with received.snapshot() as now:
        number = now.content_at(f"{ROOT}/{NAMES[0]}")
        (face,) = now.faces_of(f"{ROOT}/{NAMES[0]}").records()
    with serving.served(tmp_path) as service:
        picture = service.http.get(f"/v1/photos/{number}/picture")
        assert picture.status_code == 403
        assert f"face2vec allow {ROOT}/person-000" in picture.json()["detail"]
        assert service.http.get(f"/v1/faces/{face.face.id}/thumbnail").status_code == 200
        assert bucket.requests == []
        assert not list((tmp_path / "gallery").glob("thumbnails/*/*"))
        allow([f"{ROOT}/person-000"])
        assert service.http.get(f"/v1/photos/{number}/picture").status_code == 200


def test_addresses_are_told_from_paths() -> None:
    assert all(map(is_object, ("s3://b/a", "memory://b", "GS://b/a", "abfs://c@account/x")))
    others = ("file:///a", "http://a/b", "https://a", "milvus://a/b", "a:b", "C:/x", "a/s3://b")
    assert not any(map(is_object, others))
    assert object_address("S3://Bucket/a//b/") == "s3://Bucket/a//b"
    assert object_address("s3://arn:aws:s3:x:1:accesspoint/n/k") == (
        "s3://arn:aws:s3:x:1:accesspoint/n/k"
    )


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, engine: Face2Vec) -> None:
    needs("s3", "fsspec")
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    for package in ("s3fs", "fsspec"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=r"pip install 'face2vec\[s3\]'"):
            engine.add("s3://other-bucket/a")


def test_other_stores_of_fsspec_are_read(engine: Face2Vec, drawn: list[bytes]) -> None:
    needs("s3", "fsspec")
    import fsspec

    memory = fsspec.filesystem("memory")
    for name, data in zip(("a/1.jpg", "a.jpg", "b 2.jpg"), drawn, strict=False):
        memory.pipe(f"/shelf/photos/{name}", data)
    try:
        assert engine.add("memory://shelf/photos").added == 3
        assert addresses(engine) == [
            f"memory://shelf/photos/{name}" for name in ("a.jpg", "a/1.jpg", "b 2.jpg")
        ]
        assert engine.add("memory://shelf/photos").unchanged == 3
        memory.pipe("/shelf/photos/a.jpg", drawn[3])
        assert engine.add("memory://shelf/photos").added == 1
        memory.rm("/shelf/photos/a.jpg")
        assert engine.prune().photos == 1
    finally:
        memory.rm("/shelf", recursive=True)


def test_object_is_read_in_parts(server: ObjectServer) -> None:
    content = bytes(range(256)) * 100
    server.put("family/x.bin", content)
    with opened(f"{ROOT}/x.bin") as file:
        file.seek(-10, io.SEEK_END)
        assert file.read() == content[-10:]
        file.seek(1000)
        assert file.read(500) == content[1000:1500]
        file.seek(0)
        assert file.read() == content


def test_video_is_read_from_an_object(
    server: ObjectServer, engine: Face2Vec, tmp_path: Path
) -> None:
    needs("video", "av")
    import video_builder

    path = video_builder.write_video(tmp_path / "clip.mp4", [(video_builder.drawn(0), 2.0)])
    server.put("family/clip.mp4", path.read_bytes())
    server.put("family/clip", path.read_bytes())  # taken only when it is named
    with Face2Vec(model=engine.encoder.model.path, runtime="onnxruntime") as other:
        (here,) = other.encode_photos(path)
        (there,) = other.encode_photos(f"{ROOT}/clip.mp4")
        (named,) = other.encode_photos(f"{ROOT}/clip")
    faces = [[face.embedding.tolist() for face in one.faces] for one in (here, there, named)]
    assert faces[0]
    assert faces[0] == faces[1] == faces[2]
    done = engine.add(ROOT)
    assert (done.videos, done.faces) == (1, len(faces[0]))
    server.read()
    assert engine.add(ROOT).unchanged == 1
    assert server.read() == []


@posix_only
def test_killed_build_goes_on(
    bucket: ObjectServer, drawn: list[bytes], tiny_model: Path, tmp_path: Path
) -> None:
    for number in range(24):
        data = drawn[number % 6]
        bucket.put(f"family/more/{number:02}.jpg", data + bytes([number]))
    builder = Path(__file__).with_name("engine_builder.py")
    command = [sys.executable, str(builder), "steps"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for folder, batches in (("killed", 3), ("whole", 100)):
        with Started(
            [*command, str(tmp_path / folder), str(tiny_model), ROOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for _, line in zip(range(batches), process.stdout, strict=False):
                if line.strip() != "batch":
                    break
                process.stdin.write("\n")
                process.stdin.flush()
            if folder == "killed":
                process.send_signal(signal.SIGKILL)
    bucket.read()
    with Face2Vec(tmp_path / "killed", model=tiny_model, runtime="onnxruntime") as engine:
        done = engine.add(ROOT)
        assert done.unchanged >= 2 * 4
        assert done.added == 28 - done.unchanged
    assert len(bucket.read()) == done.added
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


def test_command_line_indexes_searches_and_refuses(
    bucket: ObjectServer, tiny_model: Path, tmp_path: Path
) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "face2vec", *words],
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "80"},
        )

    gallery = str(tmp_path / "gallery")
    done = run("index", ROOT, "--gallery", gallery, "--model", str(tiny_model), "--json")
    assert (done.returncode, json.loads(done.stdout)["added"]) == (0, 4)
    found = run("search", gallery, f"{ROOT}/{NAMES[1]}", "--json", "-k", "1")
    assert f"{ROOT}/{NAMES[1]}" in json.loads(found.stdout.splitlines()[0])["matches"][0]["photo"]
    refused = {
        "watch": run("watch", ROOT, "--gallery", gallery),
        "gallery": run("index", "photos", "--gallery", ROOT),
        "password": run("index", "s3://key:hidden@bucket/x", "--gallery", gallery),
    }
    assert [one.returncode for one in refused.values()] == [3, 3, 3]
    assert "does not tell of its changes" in refused["watch"].stderr
    assert "takes a path on this machine" in refused["gallery"].stderr
    assert "hidden" not in refused["password"].stderr
