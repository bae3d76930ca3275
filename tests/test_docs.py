from __future__ import annotations

import re
from pathlib import Path

import pytest

from face2vec.cli.main import main

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("command", sorted(main.commands))
def test_readme_names_every_command(command: str) -> None:
    assert re.search(rf"\bface2vec {command}\b", README.read_text(encoding="utf-8"))
