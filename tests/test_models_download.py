from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import face2vec.errors
from face2vec.errors import DownloadError
from face2vec.models import CATALOGUE, download
from face2vec.models.download import download as fetch

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PACKAGE_PARENT = Path(face2vec.errors.__file__).parents[1]


class Site:
    """A web server with one file and configurable faults."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.ranges: list[str | None] = []  # range headers of the requests
        self.status: list[int] = []  # status codes of the next responses, instead of the file
        self.drop_after: list[int] = []  # number of bytes after which the next connections end
        self.ignores_ranges = False
        self.tells_length = True
        self.content_range: str | None = None
        self.silent = False
        self.hold_after: int | None = None  # number of bytes after which it waits for ``release``
        self.asked, self.release = threading.Event(), threading.Event()

        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *args: Any) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/net-weights.h5"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers["Range"]
        self.ranges.append(asked)
        self.asked.set()
        if self.silent:
            self.release.wait(30)
            return
        if self.status:
            request.send_error(self.status.pop(0))
            return
        start = 0 if asked is None or self.ignores_ranges else int(asked[6:-1])
        if start >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.end_headers()
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        if start:
            told = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            request.send_header("Content-Range", self.content_range or told)
        if self.tells_length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.drop_after:
            request.wfile.write(body[: self.drop_after.pop(0)])
        elif self.hold_after is not None:
            request.wfile.write(body[: self.hold_after])
            request.wfile.flush()
            self.release.wait(30)
            with suppress(ConnectionError):  # the client may have closed the connection
                request.wfile.write(body[self.hold_after :])
        else:
            request.wfile.write(body)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "FIRST_PAUSE", 0)
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    site.release.set()
    site.server.shutdown()
    site.server.server_close()
    thread.join()


def get(site: Site, place: Path, **options: Any) -> Path:
    return fetch(site.url, place, **{"sha256": SHA256, "progress": False, **options})


def part_of(place: Path) -> Path:
    return place.with_name(place.name + ".part")


def test_download_creates_the_folder_and_the_file(site: Site, tmp_path: Path) -> None:
    place = tmp_path / "new" / "folder" / "w.h5"
    assert get(site, place) == place
    assert place.read_bytes() == CONTENT
    assert not part_of(place).exists()
    assert site.ranges == [None]


def test_download_keeps_an_existing_file(site: Site, tmp_path: Path) -> None:
    place = tmp_path / "w.h5"
    place.write_bytes(CONTENT)
    get(site, place)
    assert site.ranges == []
    assert list(tmp_path.iterdir()) == [place]


def test_download_replaces_a_file_with_another_hash(site: Site, tmp_path: Path) -> None:
    place = tmp_path / "w.h5"
    place.write_bytes(CONTENT[:-1] + b"?")
    get(site, place)
    assert place.read_bytes() == CONTENT


def test_download_resumes_a_partial_file(site: Site, tmp_path: Path) -> None:
    place = tmp_path / "w.h5"
    part_of(place).write_bytes(CONTENT[:123_456])
    get(site, place)
    assert place.read_bytes() == CONTENT
    assert site.ranges == ["bytes=123456-"]


def test_download_restarts_without_range_support(site: Site, tmp_path: Path) -> None:
    site.ignores_ranges = True
    place = tmp_path / "w.h5"
    part_of(place).write_bytes(CONTENT[:123_456])
    get(site, place)
    assert place.read_bytes() == CONTENT
    assert site.ranges == ["bytes=123456-"]


def test_download_uses_a_complete_part_without_a_request(site: Site, tmp_path: Path) -> None:
    place = tmp_path / "w.h5"
    part_of(place).write_bytes(CONTENT)
    get(site, place)
    assert place.read_bytes() == CONTENT
    assert site.ranges == []


def test_download_restarts_if_the_part_is_too_long(site: Site, tmp_path: Path) -> None:
    place = tmp_path / "w.h5"
    part_of(place).write_bytes(CONTENT + b"more")
    get(site, place)
    assert place.read_bytes() == CONTENT
    assert site.ranges == [f"bytes={len(CONTENT) + 4}-", None]


@pytest.mark.parametrize("told", ["bytes 5-299999/300000", "pages 1-2/3"])
def test_download_restarts_on_a_wrong_content_range(site: Site, tmp_path: Path, told: str) -> None:
    site.content_range = told
    place = tmp_path / "w.h5"
    part_of(place).write_bytes(CONTENT[:1000])
    get(site, place)
    assert place.read_bytes() == CONTENT
    assert site.ranges == ["bytes=1000-", None]


@pytest.mark.parametrize("tells_length", [True, False])
def test_download_resumes_a_dropped_connection(
    site: Site, tmp_path: Path, tells_length: bool
) -> None:
    site.tells_length = tells_length
    site.drop_after = [100_000, 50_000]
    place = tmp_path / "w.h5"
    get(site, place, size=len(CONTENT))
    assert place.read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_download_retries_after_server_errors(site: Site, tmp_path: Path) -> None:
    site.status = [502, 503]
    place = tmp_path / "w.h5"
    get(site, place)
    assert place.read_bytes() == CONTENT
    assert len(site.ranges) == 3


def test_download_gives_up_and_keeps_the_part(site: Site, tmp_path: Path) -> None:
    site.drop_after = [1000] * download.ATTEMPTS
    place = tmp_path / "w.h5"
    with pytest.raises(DownloadError, match=r"ended after 5000 of 300000 bytes \(tried 5 times"):
        get(site, place)
    assert part_of(place).read_bytes() == CONTENT[:5000]
    assert not place.exists()


def test_download_deletes_a_file_with_another_hash(site: Site, tmp_path: Path) -> None:
    site.content = b"<html>Please log in</html>"
    place = tmp_path / "w.h5"
    with pytest.raises(DownloadError) as error:
        get(site, place)
    got = hashlib.sha256(site.content).hexdigest()
    assert f"expected SHA-256 {SHA256}, got {got}" in str(error.value)
    assert not place.exists()
    assert not part_of(place).exists()


def test_download_does_not_retry_after_not_found(site: Site, tmp_path: Path) -> None:
    site.status = [404]
    with pytest.raises(DownloadError, match="the server answered 404"):
        get(site, tmp_path / "w.h5")
    assert len(site.ranges) == 1


def test_download_times_out_before_the_response(site: Site, tmp_path: Path) -> None:
    site.silent = True
    with pytest.raises(DownloadError, match=r"the server was silent for 0\.3 s"):
        get(site, tmp_path / "w.h5", timeout=0.3)


def test_download_times_out_during_the_response(site: Site, tmp_path: Path) -> None:
    site.hold_after = 70_000
    place = tmp_path / "w.h5"
    with pytest.raises(DownloadError, match=r"the server was silent for 0\.3 s"):
        get(site, place, timeout=0.3)
    assert part_of(place).read_bytes() == CONTENT[:70_000]


def test_download_prints_the_terms_before_it_fetches_and_not_again(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "w.onnx"
    site.status = [404]
    with pytest.raises(DownloadError, match="404"):
        get(site, place, terms="Terms of w: research only.")
    assert capsys.readouterr().err == "Terms of w: research only.\n"
    get(site, place, terms="Terms of w: research only.")
    assert capsys.readouterr().err == "Terms of w: research only.\n"
    get(site, place, terms="Terms of w: research only.")
    assert capsys.readouterr() == ("", "")


def test_download_says_what_else_to_do(site: Site, tmp_path: Path) -> None:
    site.status = [404]
    with pytest.raises(DownloadError, match="Not Found; wait a day; to place it by hand, "):
        get(site, tmp_path / "w.onnx", retry="wait a day; ")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_download_without_a_network_explains_manual_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    url = f"http://{host}:{closed_port()}/v1/net-weights.h5"
    place = tmp_path / "weights" / "w.h5"
    with pytest.raises(DownloadError, match="no connection") as error:
        fetch(url, place, sha256=SHA256, progress=False)
    message = str(error.value)
    assert url in message
    assert "download net-weights.h5" in message
    assert f"save it as {place} (SHA-256 {SHA256})" in message
    assert "\n" not in message


def test_download_without_a_network_reports_an_existing_wrong_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    place = tmp_path / "w.h5"
    place.write_text("wrong")
    with pytest.raises(DownloadError, match="replacing a file with another hash"):
        fetch(f"http://127.0.0.1:{closed_port()}/w.h5", place, sha256=SHA256, progress=False)
    assert place.read_text() == "wrong"


def test_download_refuses_an_invalid_address(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="unknown url type"):
        fetch("weights.h5", tmp_path / "w.h5", sha256=SHA256, progress=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is full")
def test_download_reports_a_full_disk(site: Site, tmp_path: Path) -> None:
    place = tmp_path / "w.h5"
    part_of(place).symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"cannot write .*w\.h5\.part \(No space left"):
        get(site, place)


def test_download_reports_a_folder_that_cannot_be_created(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match="Not a directory"):
        get(site, tmp_path / "file" / "deeper" / "w.h5")


def test_download_shows_a_progress_bar_on_stderr(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    get(site, tmp_path / "quiet.h5")
    assert capsys.readouterr() == ("", "")
    get(site, tmp_path / "loud.h5", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "loud.h5: 100%" in err
    assert "300k/300k" in err


def start_process(site: Site, place: Path) -> subprocess.Popen[str]:
    code = (
        "import sys; from pathlib import Path; from face2vec.models.download import download; "
        "download(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_PARENT), "no_proxy": "*"}
    return subprocess.Popen(
        [sys.executable, "-c", code, site.url, str(place), SHA256],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_download_by_two_processes_fetches_the_file_once(site: Site, tmp_path: Path) -> None:
    site.hold_after = 1000
    place = tmp_path / "w.h5"
    with start_process(site, place) as first:
        assert site.asked.wait(30)
        with start_process(site, place) as second:
            assert second.stderr is not None
            assert "waiting for another process" in second.stderr.readline()
            site.release.set()
            second.communicate(timeout=30)
        first.communicate(timeout=30)
    assert (first.returncode, second.returncode) == (0, 0)
    assert place.read_bytes() == CONTENT
    assert site.ranges == [None]


def test_download_keeps_the_part_after_an_interrupt(site: Site, tmp_path: Path) -> None:
    site.hold_after = 200_000
    place = tmp_path / "w.h5"
    with start_process(site, place) as process:
        until(lambda: part_of(place).exists() and part_of(place).stat().st_size > 100_000)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode != 0
    kept = part_of(place).read_bytes()
    assert kept == CONTENT[: len(kept)]
    assert len(kept) > 100_000

    site.hold_after = None
    get(site, place)
    assert place.read_bytes() == CONTENT
    assert site.ranges == [None, f"bytes={len(kept)}-"]


def until(holds: Any) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.network
def test_download_fetches_the_published_weights(tmp_path: Path) -> None:
    from face2vec.models.facenet import facenet_graph

    model = CATALOGUE["20180402-114759"]
    assert model.url is not None
    assert model.sha256 is not None
    place = fetch(model.url, tmp_path / "weights.h5", sha256=model.sha256)
    assert facenet_graph(place, model.dimension).graph.output[0].name == "embeddings"


@pytest.mark.network
@pytest.mark.parametrize("key", ["arcface-mobilefacenet", "adaface-ir18", "edgeface-xs", "sface"])
def test_download_fetches_a_published_onnx_file_of_each_family(key: str, tmp_path: Path) -> None:
    """Of ArcFace, AdaFace, EdgeFace and SFace: the file is there, is the same, and fits."""
    from face2vec.models.graph import read_graph

    model = CATALOGUE[key]
    assert model.url is not None
    assert model.sha256 is not None
    place = fetch(model.url, tmp_path / f"{key}.onnx", sha256=model.sha256)
    assert model.size_bytes in (None, place.stat().st_size)
    graph = read_graph(place)
    found = graph.layout, graph.input_size, graph.dimension
    assert found == (model.layout, model.input_size, model.dimension)
