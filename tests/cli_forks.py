"""Runs commands one after the other, each in a fork of a process that has imported what they need.

cli_forks.py < a JSON list of lists of words > a JSON list of [exit code, stdout, stderr]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from face2vec.cli.main import main


def spawn_each(
    *commands: Sequence[str | Path],
) -> list[subprocess.CompletedProcess[str]]:
    """The commands as a user runs them, each in a process of its own."""
    words = [list(map(str, command)) for command in commands]
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(words),
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        check=True,
    )
    return [
        subprocess.CompletedProcess(command, *outcome)
        for command, outcome in zip(words, json.loads(done.stdout), strict=True)
    ]


def run(words: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(in_child(words))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8"))
    return code, texts[0], texts[1]


def in_child(words: list[str]) -> int:
    code = 0
    try:
        main(words, prog_name="face2vec")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    import face2vec.encoding.encoder
    import face2vec.index.sync  # noqa: F401

    sys.stdout.write(json.dumps([run(words) for words in json.loads(sys.stdin.read())]))
