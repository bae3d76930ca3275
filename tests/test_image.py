"""The container image: what its files say, and its commands, run without a container."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import Started, posix_only
from serving import copied

from face2vec import Client

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
TOKEN_FILE = "/run/secrets/face2vec_token"


def command(instruction: str) -> list[str]:
    """The words of an instruction of the final stage that has a JSON list."""
    (words,) = re.findall(rf"^{instruction} (\[.*\])$", DOCKERFILE, re.MULTILINE)
    found: list[str] = json.loads(words)
    return found


def health_command() -> list[str]:
    (words,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    found: list[str] = json.loads(words)
    return found


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return found


def test_image_copies_files_that_are_there_and_not_ignored() -> None:
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "face2vec" in copied
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, name
    assert "*" in ignored


def test_image_runs_without_rights() -> None:
    final = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    (user,) = re.findall(r"^USER (\d+):(\d+)$", final, re.MULTILINE)
    assert "0" not in user
    assert "apt-get" not in final
    assert 'VOLUME ["/photos", "/indexes"]' in final
    assert "FACE2VEC_CACHE=/indexes/" in final


def test_compose_gives_no_more_than_is_needed(compose: dict[str, Any]) -> None:
    (service,) = compose["services"].values()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    places = {volume.rpartition("}:")[2] for volume in service["volumes"]}
    assert places == {"/photos:ro", "/indexes"}
    assert not {"privileged", "command", "entrypoint", "environment"} & set(service)


def test_compose_and_image_agree(compose: dict[str, Any]) -> None:
    (service,) = compose["services"].values()
    (secret,) = service["secrets"]
    assert set(compose["secrets"]) == {secret}
    words = command("CMD")
    assert words[words.index("--token-file") + 1] == f"/run/secrets/{secret}" == TOKEN_FILE
    assert words[words.index("--root") + 1] == "/photos"
    assert words[1].startswith("/indexes/")
    (port,) = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)
    assert [one.rpartition(":")[2] for one in service["ports"]] == [port]
    assert service["build"] == "."
    default = re.search(r"FACE2VEC_TOKEN_FILE:-\./([\w-]+)\}", compose["secrets"][secret]["file"])
    assert default
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert default[1] in ignored


@posix_only
def test_commands_of_the_image_serve_and_are_healthy(drawn_service: Path, tmp_path: Path) -> None:
    copied(drawn_service, tmp_path)
    token = secrets.token_urlsafe(24)
    (tmp_path / "token").write_text(token, encoding="utf-8")
    (tmp_path / "token").chmod(0o600)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = {
        "face2vec": [sys.executable, "-m", "face2vec"],
        "/indexes/main": [str(tmp_path / "gallery")],
        "/photos": [str(tmp_path / "photos")],
        TOKEN_FILE: [str(tmp_path / "token")],
    }
    words = [*command("ENTRYPOINT"), *command("CMD")]
    serve = [part for word in words for part in here.pop(word, [word])]
    assert here == {}
    health = [sys.executable, *health_command()[1:]]
    assert health[2].count("8000") == 1
    health[2] = health[2].replace("8000", str(port))

    def is_healthy() -> bool:
        return subprocess.run(health, stderr=subprocess.DEVNULL, check=False).returncode == 0

    assert not is_healthy()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with Started(
        [*serve, "--port", str(port)], env=environment, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stderr is not None
        address = process.stderr.readline().strip()
        try:
            assert address == f"http://127.0.0.1:{port}/?token={token}"
            assert is_healthy()
            with Client(f"http://127.0.0.1:{port}", token=token) as client:
                assert client.info()["faces"] > 0
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()
    assert not is_healthy()


@posix_only
def test_install_script_is_valid_and_takes_extras_that_are_there() -> None:
    script = ROOT / "scripts" / "image-install"
    assert os.access(script, os.X_OK)
    subprocess.run(["sh", "-n", script], check=True)
    (extras,) = re.findall(r"^ARG EXTRAS=([\w,]+)$", DOCKERFILE, re.MULTILINE)
    assert f"${{2:-{extras}}}" in script.read_text(encoding="utf-8")
    declared = (ROOT / "setup.py").read_text(encoding="utf-8")
    for extra in extras.split(","):
        assert f'    "{extra}": [' in declared
