"""A build over two Ray nodes into Milvus while nodes, the driver and Milvus are killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cluster_servers import NODES
from test_cluster_gallery import faces_in, open_at

from face2vec import samples

pytestmark = pytest.mark.cluster
HERE = Path(__file__).parent


class Driver:
    """A process that builds.

    Args:
        place: the gallery.
        ray: the cluster.
        photos: the photos.
    """

    def __init__(self, place: str, ray: str, photos: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "cluster_builder.py"), place, ray, str(photos)],
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, batches: int) -> None:
        """Wait until it has recorded some more batches."""
        assert self.process.stdout is not None
        for line in self.process.stdout:  # Ray also writes there
            batches -= line == "batch\n"
            if not batches:
                return
        raise AssertionError("it has ended")

    def end(self) -> int:
        """Its exit status."""
        assert self.process.stdout is not None
        for _ in self.process.stdout:
            pass
        self.process.stdout.close()
        return self.process.wait()


def test_killed_node_driver_and_milvus_lose_no_face(servers: Any, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    samples.write(photos, people=16, photos=5, groups=4, seed=2)
    with open_at(str(tmp_path / "reference")) as engine:
        engine.add(photos)
        wanted = faces_in(engine)
    place = servers.address()
    driver = Driver(place, servers.ray.address, photos)
    driver.wait_for(2)
    servers.ray.end(NODES[1])
    driver.wait_for(2)
    driver.process.kill()
    assert driver.end() < 0
    servers.ray.start(NODES[1])
    driver = Driver(place, servers.ray.address, photos)
    driver.wait_for(2)
    servers.milvus.end()
    servers.milvus.start()
    if driver.end():  # it may have given up before Milvus was there again
        driver = Driver(place, servers.ray.address, photos)
        assert driver.end() == 0
    with open_at(place) as engine:
        assert faces_in(engine) == wanted
        assert engine.check() == []
        assert engine.info()["photos"] == 84
        assert engine._session.gallery().vectors.count() == len(wanted)
        assert engine.add(photos).unchanged == 84
