"""What MkDocs calls while it builds the documentation: reference pages made from the package.

``<!-- commands -->`` in a page becomes the reference of every command, made from the command line
itself; ``<!-- errors -->`` and ``<!-- records -->`` become entries for the public names of
``face2vec`` (all errors; everything else but ``Face2Vec``), which mkdocstrings then fills.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import click

import face2vec
from face2vec.cli.main import main

MARKS = ("commands", "errors", "records")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its marks replaced; called by MkDocs."""
    for mark in MARKS:
        if f"<!-- {mark} -->" in markdown:
            markdown = markdown.replace(f"<!-- {mark} -->", globals()[mark]())
    return markdown


def commands() -> str:
    """Markdown of the whole command line: usage, arguments, options and help of each command."""
    root = click.Context(main, info_name="face2vec")
    everything = ((main, root), *_commands(main, root))
    return "\n\n".join(part for one in everything for part in _described(*one))


def errors() -> str:
    """An entry for each public error."""
    return _entries(name for name, thing in _public() if _is_error(thing))


def records() -> str:
    """An entry for each public name that is neither an error nor ``Face2Vec``."""
    return _entries(
        name for name, thing in _public() if not _is_error(thing) and name != "Face2Vec"
    )


def _public() -> list[tuple[str, object]]:
    return [(name, getattr(face2vec, name)) for name in face2vec.__all__]


def _is_error(thing: object) -> bool:
    return inspect.isclass(thing) and issubclass(thing, Exception)


def _entries(names: Iterator[str]) -> str:
    return "\n\n".join(f"::: face2vec.{name}" for name in names)


def _commands(group: click.Group, parent: click.Context) -> Iterator[tuple[click.Command, Any]]:
    """Each command with its context, those of a group behind the group itself."""
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=parent)
        yield command, context
        if isinstance(command, click.Group):
            yield from _commands(command, context)


def _described(command: click.Command, context: click.Context) -> Iterator[str]:
    depth = max(len(context.command_path.split()), 2)
    yield f"{'#' * depth} {context.command_path}"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```"
    yield _paragraphs(command.help or "")
    options = [one for one in command.params if isinstance(one, click.Option)]
    rows = [record for one in options if (record := one.get_help_record(context))]
    if rows:
        lines = ["| option | meaning |", "|---|---|"]
        lines += [f"| `{names}` | {_plain(words)} |" for names, words in rows]
        yield "\n".join(lines)
    if command.epilog:
        yield _paragraphs(command.epilog)


def _paragraphs(text: str) -> str:
    """Click's help as Markdown; a paragraph marked with a backspace keeps its lines."""
    parts = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if block.startswith("\b"):
            parts.append(f"```text\n{block.lstrip(chr(8)).strip(chr(10))}\n```")
        else:
            parts.append(_plain(block))
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    """Words that Markdown leaves as they are, in one line."""
    return " ".join(text.split()).replace("<", "&lt;").replace("[", "\\[").replace("|", "\\|")
