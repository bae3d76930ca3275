"""README.md and the pages in docs: their code runs, their links lead somewhere.

Each page's blocks run in the order in which they stand, in a folder with drawn people:

    ```python    is executed, all of a page's blocks in one namespace
    ```sh        its `face2vec` commands are run; other programs are looked at only
    ```console   its `$ face2vec` commands are run, and must print the lines below them;
                 figures and paths may differ

``<!-- not run: REASON -->`` above a block says why it is only parsed: Python by the compiler,
commands by the real command line.

    FACE2VEC_WRITE_DOCS=1 pytest tests/test_docs.py      writes what console blocks print
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Any

import click
import onnx
import pytest
from click.testing import CliRunner

import face2vec
from face2vec.cli.main import main

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
README_LINES = 170
CODE_COLUMNS = 88  # what fits beside the two menus of the site
DEMO = "face2vec demo --people 12"  # as in the tutorial; its photos serve all pages
MAY_SAY_NO = {"search", "verify", "identify", "upgrade", "compare"}
"""Commands that answer with exit code 1 where the answer is no."""
OTHER_PROGRAMS = {
    *("cd", "chmod", "curl", "docker", "export", "git", "printf"),
    *("pip", "pytest", "python", "python3", "nice", "ray"),
}
FEWEST_RUN = 0.75  # of all blocks

FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    code: str
    reason: str | None
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, found["language"], found["code"], found["reason"],
              text.count("\n", 0, found.start("code")) + 1)
        for found in FENCE.finditer(text)
    ]  # fmt: skip


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def lines_of(code: str) -> Iterator[str]:
    """The commands of a shell block, without continuations."""
    for line in code.replace("\\\n", " ").splitlines():
        yield from (part.strip() for part in line.split(" && ") if part.strip())


def words(command: str) -> list[str]:
    """A command's words, without variables before it and a comment after it."""
    return list(dropwhile(re.compile(r"[A-Z0-9_]+=").match, shlex.split(command, comments=True)))


def is_ours(command: str) -> bool:
    return bool(words(command)) and words(command)[0] in ("face2vec", "scripts/face2vec")


def without_code(text: str) -> str:
    return FENCE.sub("", text)


# --- the code ---------------------------------------------------------------------------------

SHOWN = [page for page in PAGES if "results" not in page.parts and blocks(page)]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder for a page to run in, and a copy of it as it is to begin with."""
    place = tmp_path_factory.mktemp("docs") / "work"
    place.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        as_installed(patch)
        (place / "demo.txt").write_text(assert_runs(DEMO), encoding="utf-8")
        demo = place / "face2vec-demo"
        shutil.copytree(demo / "photos", place / "photos")
        shutil.copytree(demo / "photos", place / "people", ignore=lambda *_: ["groups"])
        (place / "people" / "people.csv").unlink()
        for file, photo in (("someone", "queries/person-003"), ("one", "photos/person-003/0"),
                            ("other", "photos/person-003/1")):  # fmt: skip
            shutil.copy(demo / f"{photo}.jpg", place / f"{file}.jpg")
        (place / "list.txt").write_text("photos/person-001/0.jpg\n", encoding="utf-8")
        table = "name,photo\nEdsger,photos/person-005/0.jpg\n"
        (place / "people.csv").write_text(table, encoding="utf-8")
        models = Path(face2vec.__file__).parent / "models"
        shutil.copy(models / "mini.onnx", place / "my.onnx")
        unknown = onnx.load(models / "mini.onnx")  # not the file of the catalogue, but as good
        unknown.doc_string = "own"
        onnx.save(unknown, place / "net.onnx")
        (place / "my.json").write_text(json.dumps(OWN_MODEL), encoding="utf-8")
        assert_runs("face2vec index photos --gallery indexes/family --quiet")
        assert_runs("face2vec people indexes/family")
        assert_runs("face2vec name indexes/family 1 Ada")
    copy = place.with_name("copy")
    shutil.copytree(place, copy)
    return place, copy


OWN_MODEL = {
    "dimension": 256, "input_size": 96, "alignment": "landmarks", "template": "face2vec",
    "standardization": "fixed", "mean": 127.5, "std": 127.5, "channels": "RGB", "layout": "NHWC",
    "mirror": True,  # else it would be the gallery's own model, and no upgrade
}  # fmt: skip


@pytest.fixture
def work(prepared: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a page's blocks run in, as it is to begin with."""
    place, copy = prepared
    shutil.rmtree(place)
    shutil.copytree(copy, place)
    monkeypatch.chdir(place)
    as_installed(monkeypatch)
    return place


def as_installed(patch: pytest.MonkeyPatch) -> None:
    """As after ``pip install .``: without OpenVINO, which takes a third of a second to begin."""
    patch.setitem(sys.modules, "openvino", None)


def assert_runs(command: str) -> str:
    """Run a command; returns what it prints."""
    done = CliRunner().invoke(main, words(command)[1:])
    allowed = (0, 1) if words(command)[1] in MAY_SAY_NO else (0,)
    told = f"{command}\n{done.output}"
    assert done.exception is None or isinstance(done.exception, SystemExit), told
    assert done.exit_code in allowed, told
    return done.output


def assert_parses(command: str) -> None:
    """The real command line takes these words; files that they name need not be there."""
    arguments = words(command)[1:]
    group: click.Command = main
    context = click.Context(main, info_name="face2vec")
    while isinstance(group, click.Group):
        _, found, arguments = group.resolve_command(context, arguments)
        assert found is not None, command
        group = found
    try:
        group.make_context(group.name, arguments, parent=context)
    except click.BadParameter as error:
        if "does not exist" not in error.format_message():
            raise


def assert_known(command: str) -> None:
    """A command of another program: one that we know, with files of ours that are there."""
    first, *rest = words(command) or ["#"]
    if first in ("#", "."):
        return
    if first.startswith("scripts/"):
        assert (ROOT / first).exists(), command
        return
    assert first in OTHER_PROGRAMS, f"{command}: what is {first}?"
    for word in rest:
        if word.startswith(("benchmarks/", "scripts/", "training/", "tests/")):
            assert (ROOT / word).exists(), command


def plain(text: str, place: Path) -> list[str]:
    """Printed lines without figures, paths and spaces that depend on the machine."""
    text = text.replace(f"{place.resolve()}/", "").replace(f"{place}/", "")
    lines = [line for line in re.split(r"[\r\n]+", text) if not re.search(r"\d%\|", line)]
    return [" ".join(re.sub(r"\d[\d.,]*", "#", line).split()) for line in lines if line.strip()]


def printed(block: Block, place: Path) -> str:
    """The block with what its commands print now; asserts that what stands there is like it."""
    new = []
    for part in re.split(r"^(?=\$ )", block.code, flags=re.MULTILINE):
        if not part.strip():
            continue
        command, _, expected = part.removeprefix("$ ").partition("\n")
        done_before = place / "demo.txt"  # by `prepared`
        output = done_before.read_text("utf-8") if command == DEMO else assert_runs(command)
        lines = re.split(r"[\r\n]", output.replace(f"{place.resolve()}/", ""))
        shown = "\n".join(line for line in lines if not re.search(r"\d%\|", line))
        new.append(f"$ {command}\n{shown.rstrip()}")
        if "FACE2VEC_WRITE_DOCS" not in os.environ:
            rest = iter(plain(output, place))
            for line in plain(expected, place):
                assert line == "…" or line in rest, f"{command}\nprints no more: {line}\n{output}"
    return "\n\n".join(new) + "\n"


@pytest.mark.parametrize("page", SHOWN, ids=name)
def test_code_of_page_runs(page: Path, work: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    written, at = page.read_text(encoding="utf-8"), 0
    for block in blocks(page):
        where = f"{name(page)}:{block.line}"
        if block.language == "python":
            code = compile(block.code, where, "exec")
            if block.reason is None:
                exec(code, namespace)
        elif block.language == "console":
            assert block.reason is None, where
            at = written.index(f"```console\n{block.code}```", at) + len("```console\n")
            now = printed(block, work)
            written = written[:at] + now + written[at + len(block.code) :]
            at += len(now)
        elif block.language == "sh":
            for command in lines_of(block.code):
                if not is_ours(command):
                    assert_known(command)
                elif block.reason is not None or "PHOTOS" in command:
                    assert_parses(command)
                elif words(command) != ["face2vec", "demo"]:
                    assert_runs(command)
        elif block.language == "json":
            json.loads(block.code)
    for thing in namespace.values():
        if isinstance(thing, face2vec.Face2Vec):
            thing.close()
    if "FACE2VEC_WRITE_DOCS" in os.environ:
        page.write_text(written, encoding="utf-8")


def test_most_blocks_are_run() -> None:
    code = [b for page in SHOWN for b in blocks(page) if b.language in ("python", "sh", "console")]
    run = [block for block in code if block.reason is None]
    assert len(run) >= FEWEST_RUN * len(code), f"{len(run)} of {len(code)}"


@pytest.mark.parametrize("page", SHOWN, ids=name)
def test_code_fits_beside_the_menus(page: Path) -> None:
    long = [line for block in blocks(page) if block.language in ("python", "sh")
            for line in block.code.splitlines() if len(line) > CODE_COLUMNS]  # fmt: skip
    assert not long


# --- what has to be said ----------------------------------------------------------------------


def test_readme_is_one_screen_or_a_few() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_readme_shows_the_commands_that_do_the_job() -> None:
    text = README.read_text(encoding="utf-8")
    for command in ("scripts/face2vec index PHOTOS --gallery indexes/family", "scripts/test"):
        assert command in text


@pytest.mark.parametrize("command", sorted(main.commands))
def test_a_guide_or_the_tutorial_names_command(command: str) -> None:
    pages = [page for page in PAGES if page.parent in (DOCS, DOCS / "guides")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert re.search(rf"\bface2vec {command}\b", text)


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """scripts/docs_hooks.py, which makes pages of the reference."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import docs_hooks

    yield docs_hooks
    sys.modules.pop("docs_hooks")


def test_reference_has_every_command_and_option(hooks: Any) -> None:
    text = hooks.on_page_markdown("<!-- commands -->")
    for command in main.commands.values():
        assert f"\n## face2vec {command.name}\n" in text
        inner = command.commands.values() if isinstance(command, click.Group) else [command]
        for one in inner:
            for option in one.params:
                if isinstance(option, click.Option) and not option.hidden:
                    assert option.opts[-1] in text, f"{one.name} {option.opts}"


def test_reference_has_every_public_name(hooks: Any) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    text = hooks.on_page_markdown(text)
    entries = set(re.findall(r"^::: face2vec\.(\w+)$", text, re.MULTILINE))
    assert entries == set(face2vec.__all__)


def test_glossary_has_the_words_of_the_field() -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8").lower()
    terms = re.findall(r"\*\*([^*]+)\*\*", text)
    known = {word.strip() for term in terms for word in term.split(",")}
    words_of_the_field = (
        *("gallery", "query", "match", "fingerprint", "calibration", "impostor pair"),
        *("genuine pair", "logits", "nms", "flat", "pq"),
    )
    assert known.issuperset(words_of_the_field)


# --- pages and links --------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The places of a page that a link can name, by the rule of GitHub and of MkDocs."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    found = set(re.findall(r'<a id="([^"]+)"', text))
    for heading in headings:
        bare = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading)
        found.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", bare).strip().lower()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_of_page_lead_somewhere(page: Path) -> None:
    for groups in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        target = "".join(groups)
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        whole = (page.parent / path).resolve() if path else page
        assert whole.exists(), target
        if DOCS in page.parents:
            assert DOCS in whole.parents, f"{target} is outside of the site"
        if anchor and whole != DOCS / "reference" / "cli.md":
            assert anchor in anchors(whole), target


def test_every_page_is_in_the_menu_once() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"([\w/.-]+\.md)\s*$", menu, re.MULTILINE)
    assert sorted(listed) == sorted(
        page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")
    )


def test_pages_show_images_that_are_small() -> None:
    images = [*(DOCS / "images").iterdir()]
    assert images
    assert [image for image in images if image.stat().st_size > 200_000] == []
