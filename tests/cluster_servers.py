"""Real servers for the tests of galleries on several machines: Milvus, PostgreSQL and Ray.

All of them listen on addresses of this machine alone; `scripts/test --cluster` also gives them a
network namespace of their own, because Milvus listens on all interfaces.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

MILVUS_PORT, POSTGRES_PORT, RAY_PORT = 19530, 55432, 6399
NODES = ("127.0.0.2", "127.0.0.3")
START_SECONDS = 240  # started after a kill, Milvus waits until the leases of the killed one end
TOKEN = "root:Milvus"
HEALTH = "http://127.0.0.1:9091/healthz"


class ServerError(Exception):
    """A server does not start; the message has the end of what it said."""


def program(name: str) -> str:
    """Path of a program of PostgreSQL's server, or of this environment.

    Raises:
        ServerError: it is not installed.
    """
    here = Path(sys.executable).parent / name
    found = [here, *sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))]
    there = [path for path in found if path.exists()]
    path = there[-1] if there else shutil.which(name)
    if path is None:
        raise ServerError(f"{name} is not installed; scripts/test --cluster installs it")
    return str(path)


def end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:] if log.exists() else ""


class Milvus:
    """A standalone Milvus, with authorization.

    Args:
        folder: for its data.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerError: it has ended, or does not answer.
        """
        log = self.folder.with_suffix(".log")
        if (self.folder / "configs").exists():
            self._start_again(log)
            self._wait(log)
            return
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                (
                    *(program("milvus-server"), "--data", str(self.folder)),
                    *("--proxy-port", str(MILVUS_PORT), "--authorization-enabled", "true"),
                ),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait(log)

    def _start_again(self, log: Path) -> None:
        """Run the server with its settings as they are.

        The package would look for other ports, because those of the killed one are still known to
        the system for a minute.
        """
        programs = self.folder / "bin"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(programs / "milvus"), "run", "standalone"],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
                env=os.environ
                | {
                    "DEPLOY_MODE": "STANDALONE",
                    "METRICS_PORT": "9091",
                    "MILVUS_RUN_DIR": str(self.folder / "run"),
                    "LD_LIBRARY_PATH": str(programs),
                },
            )

    def _wait(self, log: Path) -> None:
        assert self._process is not None
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), urllib.request.urlopen(HEALTH, timeout=2) as answer:
                if answer.read() == b"OK":
                    socket.create_connection(("127.0.0.1", MILVUS_PORT), 2).close()
                    return
            time.sleep(0.5)
        raise ServerError(
            f"Milvus does not answer on port {MILVUS_PORT}: {end_of(log)}"
            f"{end_of(self.folder / 'logs' / 'milvus-stderr.log')}"
        )

    def end(self, number: int = signal.SIGKILL) -> None:
        """End it and all its processes."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            self._process.wait()
            self._process = None


class Postgres:
    """A PostgreSQL server on a loopback address.

    Args:
        folder: for its data; must be reachable for other users.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"postgresql://face2vec@127.0.0.1:{POSTGRES_PORT}/postgres"
        # It refuses to run as root.
        self._user = "postgres" if getpass.getuser() == "root" else None

    def start(self) -> None:
        """Make a database and start the server.

        Raises:
            ServerError: it does not start.
        """
        self.folder.mkdir()
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        data, log = self.folder / "data", self.folder / "log"
        settings = f"-h 127.0.0.1 -p {POSTGRES_PORT} -k '' -c fsync=off"
        for command in (
            [program("initdb"), "-D", data, "-A", "trust", "-U", "face2vec", "--no-sync"],
            [program("pg_ctl"), "-D", data, "-l", log, "-o", settings, "-w", "start"],
        ):
            done = subprocess.run(
                [str(one) for one in command],
                user=self._user,
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            if done.returncode:
                raise ServerError(f"PostgreSQL does not start: {done.stderr}{end_of(log)}")

    def end(self) -> None:
        """Stop it."""
        subprocess.run(
            [program("pg_ctl"), "-D", str(self.folder / "data"), "-m", "immediate", "stop"],
            user=self._user,
            cwd="/",
            stdout=subprocess.DEVNULL,
            check=True,
        )


class Ray:
    """Two nodes with one processor each.

    Args:
        folder: for their files; its path is short, because sockets are in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"{NODES[0]}:{RAY_PORT}"
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, node: str) -> None:
        """Start one of ``NODES``, the first of them as the head, and wait until it is there.

        Raises:
            ServerError: it does not start.
        """
        where = ["--head", f"--port={RAY_PORT}", f"--temp-dir={self.folder}"]
        where += ["--include-dashboard=false"]
        if node != NODES[0]:
            where = [f"--address={self.address}"]
        log = self.folder.with_name(f"ray-{node}.log")
        with log.open("wb") as output:
            self._nodes[node] = subprocess.Popen(
                (
                    *(program("ray"), "start", *where, f"--node-ip-address={node}"),
                    *("--num-cpus=1", "--object-store-memory=80000000"),
                    *("--block", "--disable-usage-stats"),
                ),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"RAY_memory_monitor_refresh_ms": "0"},
            )
        until = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in end_of(log):
            if self._nodes[node].poll() is not None or time.monotonic() > until:
                raise ServerError(f"the Ray node {node} does not start: {end_of(log)}")
            time.sleep(0.2)

    def end(self, node: str) -> None:
        """End a node and all its processes by SIGKILL."""
        process = self._nodes.pop(node, None)
        if process is not None:
            for child in [*children_of(process.pid), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            process.wait()

    def end_all(self) -> None:
        """End all nodes."""
        for node in list(self._nodes):
            self.end(node)


def children_of(process: int) -> list[int]:
    """All processes that a process has started, and those that they have started."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            number, rest = status.read_text().split(" (", 1)
            parent = int(rest.rpartition(") ")[2].split()[1])
            children.setdefault(parent, []).append(int(number))
    found = list(children.get(process, []))
    for child in found:
        found += children.get(child, [])
    return found


class Servers:
    """The servers of a test session.

    Args:
        folder: for all their files.
    """

    def __init__(self, folder: Path) -> None:
        self.milvus = Milvus(folder / "milvus")
        self.postgres = Postgres(folder / "postgres")
        self.ray = Ray(folder / "ray")
        self._archives = 0

    def address(self, archive: str | None = None) -> str:
        """The address of a gallery that no other test has."""
        self._archives += 1
        name = archive or f"test_{os.getpid()}_{self._archives}"
        return f"milvus://{TOKEN}@127.0.0.1:{MILVUS_PORT}/{name}"


@contextlib.contextmanager
def running() -> Iterator[Servers]:
    """Milvus, PostgreSQL and two nodes of Ray, stopped at the end.

    Raises:
        ServerError: one does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="f2v-"))
    folder.chmod(0o755)
    servers = Servers(folder)
    with contextlib.ExitStack() as ends:
        ends.callback(shutil.rmtree, folder, ignore_errors=True)
        for port in (MILVUS_PORT, POSTGRES_PORT, RAY_PORT, 2380):
            refuse_taken(port)
        ends.callback(servers.milvus.end)
        servers.milvus.start()
        servers.postgres.start()
        ends.callback(servers.postgres.end)
        ends.callback(servers.ray.end_all)
        for node in NODES:
            servers.ray.start(node)
        yield servers


def refuse_taken(port: int) -> None:
    """Check that no other program has a port.

    Raises:
        ServerError: one has.
    """
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServerError(
                f"another program has port {port}; run the tests with scripts/test --cluster, "
                "which gives them a network of their own"
            ) from error
