"""Shared fixtures: a model that needs no download, and a folder of photos with faces.

The faces are the public-domain photos that come inside scikit-image (Eileen
Collins) and matplotlib (Grace Hopper).
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helpers
import pytest
from PIL import Image, ImageEnhance, ImageOps

# A shell that starts the tests in the background makes them ignore Ctrl-C. The processes that
# tests interrupt would inherit this.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ASKED_FOR = ("network", "gpu", "deepface", "browser", "cluster")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--detector",
        metavar="MODULE:NAME",
        help="also run the tests of detectors over this one; NAME is called without arguments",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that need what is not everywhere, unless -m names their marker."""
    chosen = config.getoption("-m")
    for name in ASKED_FOR:
        if name not in chosen:
            left_out = [item for item in items if item.get_closest_marker(name)]
            items[:] = [item for item in items if not item.get_closest_marker(name)]
            config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests away from the user's cache of models, and from what the user has allowed."""
    monkeypatch.setenv("FACE2VEC_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("FACE2VEC_CONFIG", str(tmp_path_factory.getbasetemp() / "config"))
    monkeypatch.delenv("FACE2VEC_ALLOW", raising=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder; the working directory is another one."""
    folder, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.chdir(elsewhere)
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Path of a weights file that is deleted after the test, because it is large."""
    path = tmp_path / "w.weights.h5"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file with its description: a fixed random projection of the reduced crop."""
    return helpers.tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx", seed=7)


@pytest.fixture(scope="session")
def astronaut() -> Image.Image:
    """Eileen Collins, 512×512, one face of about 70 pixels."""
    from skimage import data

    return Image.fromarray(data.astronaut())


@pytest.fixture(scope="session")
def hopper() -> Image.Image:
    """Grace Hopper, 512×600, one face of about 170 pixels."""
    from matplotlib import cbook

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return Image.open(file).convert("RGB")


@pytest.fixture(scope="session")
def faces_folder(
    tmp_path_factory: pytest.TempPathFactory, astronaut: Image.Image, hopper: Image.Image
) -> Path:
    """Photos of two people, one of both, one without a face, a copy, and two unreadable files."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    astronaut.save(folder / "astronaut.jpg", quality=95)
    hopper.save(folder / "hopper.jpg", quality=95)
    ImageOps.mirror(astronaut).save(folder / "more" / "astronaut-mirrored.png")
    ImageEnhance.Brightness(astronaut).enhance(0.6).save(folder / "more" / "astronaut-darker.jpg")
    ImageEnhance.Brightness(hopper).enhance(1.3).save(folder / "more" / "hopper-brighter.webp")
    both = Image.new("RGB", (1024, 600), "gray")
    both.paste(astronaut, (0, 0))
    both.paste(hopper, (512, 0))
    both.save(folder / "both.jpg", quality=95)
    Image.linear_gradient("L").convert("RGB").resize((300, 200)).save(folder / "nobody.jpg")
    (folder / "copy of hopper.jpg").write_bytes((folder / "hopper.jpg").read_bytes())
    (folder / "broken.jpg").write_bytes((folder / "hopper.jpg").read_bytes()[:500])
    (folder / "empty.jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="session")
def _drawn_service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import serving

    return serving.drawn_gallery(tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def drawn_service(_drawn_service: Path) -> Path:
    """A folder with photos of drawn people and their gallery, which tests only read and copy."""
    shutil.rmtree(_drawn_service / "gallery" / "thumbnails", ignore_errors=True)
    return _drawn_service


@pytest.fixture(scope="session")
def servers() -> Iterator[Any]:
    """Milvus, PostgreSQL and two nodes of Ray."""
    import cluster_servers

    with cluster_servers.running() as servers, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACE2VEC_POSTGRES", servers.postgres.address)
        yield servers
