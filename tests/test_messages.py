"""Error messages have one style: lower case, no full stop, parts separated by semicolons."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "face2vec"
NAMES = ("CUDA", "FAISS", "FACES", "Keras", "LFW", "MTCNN", "ONNX", "OpenVINO", "PEOPLE", "SQLite")
"""Words that are written with capitals wherever they stand."""


def text_of(node: ast.expr) -> str | None:
    """A message with ``{}`` for each value; None if it is not written where it is raised."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        return "".join(map(str, parts))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left), text_of(node.right)
        return None if left is None or right is None else left + right
    return None


def messages() -> Iterator[tuple[str, str]]:
    """(place, message) of each error that is made in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            called = ast.unparse(node.func).rpartition(".")[2]
            if re.fullmatch(r"[A-Z]\w*Error", called) or called == "damaged":
                for argument in node.args:
                    if text := text_of(argument):
                        yield f"{path.relative_to(PACKAGE)}:{node.lineno}", text


def test_error_messages_have_one_style() -> None:
    wrong = []
    count = 0
    for place, text in messages():
        count += 1
        if text.endswith("."):
            wrong.append(f"{place}: ends with a full stop: {text}")
        if re.search(r"[.!] [A-Z]", text):
            wrong.append(f"{place}: more than one sentence: {text}")
        if text[0].isupper() and not text.startswith(NAMES):
            wrong.append(f"{place}: begins with a capital: {text}")
    assert count > 150
    assert not wrong, "\n".join(wrong)
