"""What galleries on several machines do without a server: addresses, the rule, statements."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from face2vec import Face2Vec, MissingExtraError, SettingsError
from face2vec.cli.main import main
from face2vec.cluster import policy
from face2vec.cluster.address import MilvusAddress, is_address, redacted
from face2vec.cluster.postgres import translated
from face2vec.cluster.store import FACE_BITS

SECRET = "open-sesame"
WITH_SECRET = f"milvus://ada:{SECRET}@db.example:19531/family"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FACE2VEC_MILVUS_TOKEN", "FACE2VEC_POSTGRES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "host", "port", "archive", "token"),
    [
        (WITH_SECRET, "db.example", 19531, "family", f"ada:{SECRET}"),
        ("milvus://db.example/family", "db.example", 19530, "family", ""),
        ("milvus://127.0.0.1/a_1/", "127.0.0.1", 19530, "a_1", ""),
        ("milvus://[::1]:7/x", "::1", 7, "x", ""),
        ("milvus://ada:p%40ss@db/x", "db", 19530, "x", "ada:p@ss"),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int, archive: str, token: str) -> None:
    found = MilvusAddress.parse(text)
    assert (found.host, found.port, found.archive, found.token) == (host, port, archive, token)
    assert is_address(text)
    assert is_address(found)
    assert MilvusAddress.parse(str(found)).archive == archive


@pytest.mark.parametrize(
    "text",
    [
        "milvus://",
        "milvus://host",
        "milvus://host/",
        "milvus://host/Upper",
        "milvus://host/a-b",
        "milvus://host/a/b",
        "milvus://host:port/a",
        f"milvus://ada:{SECRET}@host/1a",
        "milvus://host/a?b=c",
    ],
)
def test_wrong_address_is_told_without_its_password(text: str) -> None:
    with pytest.raises(SettingsError, match="is not the address of a gallery in Milvus") as wrong:
        MilvusAddress.parse(text)
    assert SECRET not in str(wrong.value)


def test_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACE2VEC_MILVUS_TOKEN", SECRET)
    assert MilvusAddress.parse("milvus://ada@host/x").token == f"ada:{SECRET}"
    assert MilvusAddress.parse("milvus://host/x").token == SECRET
    assert MilvusAddress.parse("milvus://ada:other@host/x").token == "ada:other"
    monkeypatch.setenv("FACE2VEC_MILVUS_TOKEN", f"ada:{SECRET}")
    assert MilvusAddress.parse("milvus://ada@host/x").token == f"ada:{SECRET}"


def test_password_is_in_no_text_of_an_address() -> None:
    address = MilvusAddress.parse(WITH_SECRET)
    assert str(address) == "milvus://db.example:19531/family"
    assert SECRET not in f"{address!r} {address} {address.uri}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            f"cannot reach {WITH_SECRET} now",
            "cannot reach milvus://***@db.example:19531/family now",
        ),
        (f"postgresql://ada:{SECRET}@host/db", "postgresql://***@host/db"),
        (f"host=h password={SECRET} user=ada", "host=h password=*** user=ada"),
        (f"wrong token ada:{SECRET}", "wrong token ***"),
        (f"password {SECRET!r}", "password '***'"),
        ("milvus://host/x", "milvus://host/x"),
    ],
)
def test_texts_of_others_are_redacted(text: str, shown: str) -> None:
    assert redacted(text, MilvusAddress.parse(WITH_SECRET)) == shown


def test_folders_are_no_addresses() -> None:
    for place in ("indexes/family", Path("milvus"), "http://host/x", None, 7):
        assert not is_address(place)


@pytest.mark.parametrize(
    ("package", "extra"), [("pymilvus", "Face2Vec('milvus://127.0.0.1:1/x')"), ("ray", "ray")]
)
def test_missing_extra_is_told(package: str, extra: str, tmp_path: Path) -> None:
    call = (
        extra if extra != "ray" else f"Face2Vec({str(tmp_path)!r}, ray='auto')._session.workers()"
    )
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from face2vec import Face2Vec, MissingExtraError\n"
        f"try:\n    {call}\nexcept MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ)
    )
    assert f"needs the package {package!r}" in done.stdout
    assert "pip install 'face2vec[cluster]'" in done.stdout
    assert issubclass(MissingExtraError, ImportError)


@pytest.mark.parametrize(
    ("faces", "kind", "params"),
    [
        (0, "FLAT", {}),
        (policy.EXACT_BELOW - 1, "FLAT", {}),
        (policy.EXACT_BELOW, "IVF_SQ8", {"nprobe": policy.PROBED}),
        (10**9, "IVF_SQ8", {"nprobe": policy.PROBED}),
    ],
)
def test_index_follows_one_rule(faces: int, kind: str, params: dict[str, Any]) -> None:
    rule = policy.index_rule(faces)
    assert rule.kind == kind
    assert rule.searched_with() == params
    assert rule.built_with == ({"nlist": policy.CLUSTERS} if params else {})


def test_narrow_filters_are_scanned_or_probe_all_lists() -> None:
    rule = policy.index_rule(10**6)
    assert rule.searched_with(policy.NARROW_SHARE) == {"nprobe": policy.PROBED}
    assert rule.searched_with(policy.NARROW_SHARE / 2) == {"nprobe": policy.CLUSTERS}
    assert policy.scans_exactly(policy.EXACT_FACES, 0.01)
    assert not policy.scans_exactly(policy.EXACT_FACES + 1, 0.01)
    assert not policy.scans_exactly(10, 0.5)


@pytest.mark.parametrize(
    ("sqlite", "postgres"),
    [
        ("SELECT 1 FROM a WHERE b = ? AND c = ?", "SELECT 1 FROM a WHERE b = %s AND c = %s"),
        ("SELECT ?1, ?2 WHERE ?1 = 3", "SELECT %(p1)s, %(p2)s WHERE %(p1)s = 3"),
        ("SELECT 5 % 3", "SELECT 5 %% 3"),
        (
            "INSERT OR IGNORE INTO apart VALUES (?, ?)",
            "INSERT INTO apart VALUES (%s, %s) ON CONFLICT DO NOTHING",
        ),
        (
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value ="
            " excluded.value",
        ),
    ],
)
def test_statements_are_translated(sqlite: str, postgres: str) -> None:
    assert translated(sqlite) == postgres


@pytest.mark.parametrize(
    "command",
    [
        ["watch", ".", "--gallery"],
        ["upgrade", "--model", "mini"],
        ["serve"],
        ["lab", "slices"],
    ],
)
def test_commands_that_need_a_folder_say_so_in_one_line(command: list[str]) -> None:
    done = CliRunner().invoke(main, [*command, WITH_SECRET])
    assert SECRET not in done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("face2vec: ")]
    assert "milvus://db.example:19531/family is a gallery in Milvus" in line
    assert "face2vec copy milvus://db.example:19531/family indexes/copy" in line


@pytest.mark.cluster
def test_database_is_asked_for() -> None:
    from face2vec.cluster.postgres import PostgresConnection

    with pytest.raises(SettingsError, match="FACE2VEC_POSTGRES=postgresql://") as wrong:
        PostgresConnection(MilvusAddress.parse(WITH_SECRET))
    assert SECRET not in str(wrong.value)


def test_numbers_of_faces_fit_into_64_bits() -> None:
    assert (10**12 << FACE_BITS) + (1 << FACE_BITS) - 1 < 2**63


def test_missing_extra_is_told_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MissingExtraError) as missing:
        Face2Vec(WITH_SECRET)
    assert SECRET not in str(missing.value)
