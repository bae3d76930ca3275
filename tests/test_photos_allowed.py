"""Which addresses of objects are read on this machine, and what remembers it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import posix_only

from face2vec import AddressNotAllowedError, NotWrittenError, SettingsError
from face2vec.photos.allowed import (
    allow,
    allowed,
    allowed_file,
    check_allowed,
    is_allowed,
)


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "config"
    monkeypatch.setenv("FACE2VEC_CONFIG", str(folder))
    return folder


def test_nothing_is_allowed_at_first() -> None:
    assert allowed() == ()
    with pytest.raises(AddressNotAllowedError, match=r"face2vec allow s3://bucket/2024$"):
        check_allowed("s3://bucket/2024/a.jpg")


def test_allowed_address_stands_for_what_is_below_it_and_not_beside_it() -> None:
    allow(["s3://bucket/2024/", "photos", "/photos", "s3://bucket/2024/05"])
    assert allowed() == ("s3://bucket/2024", "s3://bucket/2024/05")
    assert all(map(is_allowed, ("s3://bucket/2024", "s3://bucket/2024/a", "s3://bucket/2024/b/c")))
    others = (
        *("s3://bucket", "s3://bucket/2024x", "s3://bucket/2025/a", "s3://bucket/2024/../a"),
        *(
            "s3://bucket/2024/b/./a",
            "s3://bucket/2024/..\\a",
            "gs://bucket/2024/a",
            "s3://BUCKET/2024",
        ),
    )
    assert not any(map(is_allowed, others))


def test_what_is_allowed_already_is_not_written_again(config: Path) -> None:
    allow(["S3://bucket"])
    allow(["s3://bucket", "s3://bucket/été"])
    assert (config / "allowed.txt").read_text(encoding="utf-8") == "s3://bucket\n"


def test_lines_of_the_file_can_be_edited(config: Path) -> None:
    config.mkdir()
    file = config / "allowed.txt"
    file.write_bytes(b"# mine\r\n\r\ns3://one/ a b/\r\nno address\ns3://two")
    assert allowed() == ("s3://one/ a b", "s3://two")
    allow(["s3://three"])
    assert allowed() == ("s3://one/ a b", "s3://two", "s3://three")
    file.write_text("s3://two\n", encoding="utf-8")
    assert allowed() == ("s3://two",)


def test_variable_allows_addresses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACE2VEC_ALLOW", "s3://one/x, gs://two ,photos,")
    assert allowed() == ("s3://one/x", "gs://two")
    allow(["s3://one/x/y"])
    assert not allowed_file().exists()


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("s3://b/2024/05/a.jpg", "face2vec allow s3://b/2024/05"),
        ("s3://b/a.jpg", "face2vec allow s3://b"),
        ("s3://b/2024", "face2vec allow s3://b/2024"),
        ("s3://b.c", "face2vec allow s3://b.c"),
        ("s3://b/a b/it's.jpg", "face2vec allow 's3://b/a b'"),
    ],
)
def test_message_has_the_command(address: str, command: str) -> None:
    with pytest.raises(AddressNotAllowedError) as caught:
        check_allowed(address)
    assert str(caught.value).endswith(f": {command}")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://KEY:hidden@bucket/a", "password"),
        ("s3://bucket/a\ns3://other", "line break"),
        ("s3://", "names no bucket"),
    ],
)
def test_wrong_address_is_refused(address: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        allow(["s3://bucket/x", address])
    assert allowed() == ()


@posix_only
def test_file_that_cannot_be_written_is_an_error_that_says_what_to_do(config: Path) -> None:
    config.write_bytes(b"a file")
    with pytest.raises(NotWrittenError, match=r"FACE2VEC_ALLOW='s3://a,s3://b c'"):
        allow(["s3://a", "s3://b c"])
    assert allowed() == ()


def test_place_is_in_the_users_config_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.delenv("FACE2VEC_CONFIG")
    assert allowed_file() == Path(platformdirs.user_config_dir("face2vec"), "allowed.txt")


def test_command_allows_and_lists(config: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "face2vec", "allow", *words]
        return subprocess.run(command, capture_output=True, encoding="utf-8")

    done = run("s3://bucket/2024/", "gs://other")
    assert (done.returncode, done.stdout) == (0, "")
    assert str(config / "allowed.txt") in done.stderr
    assert run().stdout == "s3://bucket/2024\ngs://other\n"
    wrong = run("photos")
    assert wrong.returncode == 2
    assert "this machine need no permission" in " ".join(wrong.stderr.split())
