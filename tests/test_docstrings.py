"""Public docstrings give the shape and dtype of every array and list every error that is raised.

Run as a script, it prints what is missing: python tests/test_docstrings.py [PREFIX OF A MODULE]
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent / "face2vec"

SHAPE = re.compile(
    # (n,), (n, d), (height, width, 3), (…, 5, 2), (n + 1, 2 · d)
    r"\((?:[\w…+·*/ -]{1,16}, ?)+(?:[\w…+·*/ -]{1,16})?\)|\b(?:any|same|this|whose) shape\b"
)
DTYPE = re.compile(r"\b(?:u?int(?:8|16|32|64)|float(?:16|32|64)|bool|floating|any dtype)\b", re.I)
SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Attributes|Example|Examples):$")


class Missing(NamedTuple):
    """An entry that a docstring lacks."""

    module: str
    line: int
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.name}: {self.what}"


class Doc:
    """A docstring in parts: free text, and the entries of each section by their names."""

    def __init__(self, text: str | None) -> None:
        self.free = ""
        self.sections: dict[str, str] = {}
        self.entries: dict[str, dict[str, str]] = {}
        section = ""
        for line in (text or "").splitlines():
            found = SECTION.match(line)
            if found:
                section = found[1]
                self.sections[section] = ""
            elif section and (line.startswith("    ") or not line):
                self.sections[section] += line[4:] + "\n"
            else:
                section = ""
                self.free += line + "\n"
        for section, body in self.sections.items():
            entries = self.entries.setdefault(section, {})
            names: list[str] = []
            for line in body.splitlines():
                found = re.match(r"^([*\w, .]+?): ?(.*)$", line)
                if found:
                    names = [name.strip("* ") for name in found[1].split(",")]
                    for name in names:
                        entries[name] = found[2]
                else:
                    for name in names:
                        entries[name] += "\n" + line

    def entry(self, name: str, *sections: str) -> str | None:
        """The entry of a name in the first section that has one."""
        for section in sections:
            if name in self.entries.get(section, {}):
                return self.entries[section][name]
        return None


def is_described(text: str, arrays: int = 1) -> bool:
    """Whether a text gives the shapes of so many arrays, and a dtype."""
    return len(SHAPE.findall(text)) >= arrays and DTYPE.search(text) is not None


def sources() -> dict[str, ast.Module]:
    """The syntax tree of each module by its name below face2vec."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__")
        found[name.rstrip(".")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def array_types(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """For each module, the names in it of types that are arrays or containers of arrays.

    An alias that is a choice between an array and something else, such as what can be opened as
    a photo, is left out: it says itself what it takes.
    """
    known = {module: {"NDArray", "ndarray"} for module in trees}
    imports = {
        module: [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        for module, tree in trees.items()
    }
    while True:
        before = sum(map(len, known.values()))
        for module, tree in trees.items():
            for node in imports[module]:
                other = (node.module or "").removeprefix("face2vec.")
                known[module] |= {alias.name for alias in node.names} & known.get(other, set())
            for node in tree.body:
                if (
                    isinstance(node, ast.Assign)
                    and isinstance(node.targets[0], ast.Name)
                    and isinstance(node.value, ast.Subscript | ast.Attribute | ast.Name)
                    and mentions(node.value, known[module])
                ):
                    known[module].add(node.targets[0].id)
        if sum(map(len, known.values())) == before:
            return known


def mentions(annotation: ast.expr | None, names: set[str]) -> bool:
    """Whether an annotation names one of these types outside the arguments of a callable."""
    if annotation is None:
        return False
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            return mentions(ast.parse(annotation.value, mode="eval").body, names)
        except SyntaxError:  # the key of a dictionary
            return False
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Callable":
        return False
    if isinstance(annotation, ast.Name):
        return annotation.id in names
    if isinstance(annotation, ast.Attribute):
        return annotation.attr in names
    return any(mentions(child, names) for child in ast.iter_child_nodes(annotation))  # type: ignore[arg-type]


def error_names(trees: dict[str, ast.Module]) -> set[str]:
    """Names of the classes below Face2VecError, wherever they are defined."""
    names = {"Face2VecError"}
    while True:
        more = {
            node.name
            for tree in trees.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and {ast.unparse(b) for b in node.bases} & names
        }
        if more <= names:
            return names
        names |= more


def raised_in(function: ast.FunctionDef, names: set[str]) -> set[str]:
    """Errors that the body of a function raises itself, not in functions inside it."""
    found = set()
    stack: list[ast.AST] = list(function.body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).rpartition(".")[2]
            if name in names:
                found.add(name)
        stack.extend(ast.iter_child_nodes(node))
    return found


def missing_in_function(
    function: ast.FunctionDef, of_class: Doc | None, arrays: set[str], errors: set[str]
) -> Iterator[str]:
    """What the docstring of a function or, for ``__init__``, of its class lacks."""
    doc = Doc(ast.get_docstring(function))
    if function.name == "__init__":
        assert of_class is not None
        doc = of_class
    given = function.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    arguments += [one for one in (given.vararg, given.kwarg) if one is not None]
    in_free_text = []
    for argument in arguments:
        if mentions(argument.annotation, arrays):
            entry = doc.entry(argument.arg, "Args", "Attributes")
            if entry is None:
                in_free_text.append(argument.arg)
            elif not is_described(entry):
                yield argument.arg
    if mentions(function.returns, arrays):
        entry = doc.sections.get("Returns", doc.sections.get("Yields"))
        if entry is None:
            in_free_text.append("what it returns")
        elif not is_described(entry):
            yield "what it returns"
    if in_free_text and not is_described(doc.free, len(in_free_text)):
        yield from in_free_text
    listed = doc.sections.get("Raises", "")
    for name in sorted(raised_in(function, errors)):
        if not re.search(rf"\b{name}\b", listed):
            yield f"raises {name}"


def missing_in_class(node: ast.ClassDef, arrays: set[str]) -> Iterator[str]:
    """Attributes with annotations, in the class or on ``self``, that its docstring lacks."""
    doc = Doc(ast.get_docstring(node))
    below = {
        ast.unparse(one.target): ast.literal_eval(other.value)
        for one, other in pairwise(node.body)
        if isinstance(one, ast.AnnAssign)
        and isinstance(other, ast.Expr)
        and isinstance(other.value, ast.Constant)
    }
    for inner in ast.walk(node):
        if not isinstance(inner, ast.AnnAssign) or not mentions(inner.annotation, arrays):
            continue
        if isinstance(inner.target, ast.Name) and inner in node.body:
            name = inner.target.id
        elif isinstance(inner.target, ast.Attribute) and ast.unparse(inner.target.value) == "self":
            name = inner.target.attr
        else:
            continue
        entry = below.get(name, doc.entry(name, "Attributes", "Args"))
        if not name.startswith("_") and not is_described(doc.free if entry is None else entry):
            yield name


def missing() -> list[Missing]:
    """All that public docstrings lack."""
    trees = sources()
    types, errors = array_types(trees), error_names(trees)
    found = []
    for module, tree in trees.items():
        arrays = types[module]
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                for what in missing_in_function(node, None, arrays, errors):
                    found.append(Missing(module, node.lineno, node.name, what))
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                doc = Doc(ast.get_docstring(node))
                for what in missing_in_class(node, arrays):
                    found.append(Missing(module, node.lineno, node.name, what))
                for inner in node.body:
                    if not isinstance(inner, ast.FunctionDef):
                        continue
                    if inner.name.startswith("_") and inner.name not in ("__init__", "__call__"):
                        continue
                    name = f"{node.name}.{inner.name}"
                    for what in missing_in_function(inner, doc, arrays, errors):
                        found.append(Missing(module, inner.lineno, name, what))
    return found


def package_of(module: str) -> str:
    return module.partition(".")[0]


def test_docstrings_lack_nothing() -> None:
    lacking = [str(one) for one in missing()]
    assert not lacking, "\n".join(lacking)


ERRORS = "class Face2VecError: ...\nclass SettingsError(Face2VecError): ..."
BAD = """
from numpy.typing import NDArray
import numpy as np
Ids = NDArray[np.int64]
Words = str | NDArray[np.uint8]

class OwnError(Face2VecError):
    pass

def one(ids: Ids, words: Words, how: Callable[[Ids], int]) -> tuple[Ids, int]:
    '''What the ids int64 (n,) are.

    Args:
        words: not counted.
    '''
    def inner() -> None:
        raise SettingsError("not counted")
    if ids:
        raise OwnError("counted")

class Two:
    '''A class.

    Args:
        first: int64 (n,).
        second: (n,) of what?

    Attributes:
        third: float32 of what shape?
    '''

    third: NDArray[np.float32]
    fourth: NDArray[np.float32]
    'float32 (n, d).'

    def __init__(self, first: Ids, second: Ids) -> None:
        self.fifth: Ids = first
        self._sixth: Ids = first
        raise SettingsError("it")

    def _private(self, ids: Ids) -> Ids:
        return ids

    @property
    def seventh(self) -> Ids:
        '''int64 (n,).

        Raises:
            OwnError: always.
        '''
        raise OwnError("listed")
"""


def test_what_is_missing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    trees = {"errors": ast.parse(ERRORS), "bad": ast.parse(BAD)}
    monkeypatch.setitem(globals(), "sources", lambda: trees)
    assert [(one.name, one.what) for one in missing()] == [
        ("one", "ids"),  # one shape for two arrays
        ("one", "what it returns"),
        ("one", "raises OwnError"),
        ("Two", "third"),
        ("Two", "fifth"),
        ("Two.__init__", "second"),
        ("Two.__init__", "raises SettingsError"),
    ]


if __name__ == "__main__":
    some = [one for one in missing() if one.module.startswith((*sys.argv[1:], "")[0])]
    for one in some:
        sys.stdout.write(f"{one}\n")
    sys.stdout.write(f"{dict(Counter(package_of(one.module) for one in some))}\n")
