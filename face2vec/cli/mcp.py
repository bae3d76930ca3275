"""``face2vec mcp``."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from importlib.util import find_spec

import click

from face2vec.cli.common import (
    GalleryPlace,
    Place,
    _Messages,
    reached,
    runtime_options,
    verbose_option,
)
from face2vec.errors import MissingExtraError


@click.command("mcp")
@click.argument("gallery", type=GalleryPlace(service=True))
@runtime_options
@verbose_option
def mcp_command(gallery: Place | str, runtime: str, threads: int | None) -> None:
    """Let an assistant search GALLERY, by the Model Context Protocol.

    An assistant that runs on this machine starts this command and talks to it over standard input
    and output. It can search, and change nothing. It sees the paths of photos and the names of
    people, and may send them to whoever runs its language model. GALLERY is a folder, or the
    address that 'serve' prints.
    """
    _check_extra()
    from face2vec.engine import Face2Vec
    from face2vec.mcp import serve

    with _log_of_mcp(), reached(gallery, runtime, threads) as engine:
        if isinstance(engine, Face2Vec):
            with engine.snapshot():  # a gallery that cannot be read is told now
                pass
        serve(engine)


def _check_extra() -> None:
    """Check that the package mcp is installed, in a version that has the server.

    Raises:
        MissingExtraError: it is not.
    """
    if find_spec("mcp") is None or find_spec("mcp.server.mcpserver") is None:  # 1.x has no such
        raise MissingExtraError("face2vec mcp", "mcp>=2.0", "mcp")


@contextlib.contextmanager
def _log_of_mcp() -> Iterator[None]:
    """Print warnings of the package mcp, such as an error in a tool, to standard error."""
    logger = logging.getLogger("mcp")
    handler: logging.Handler = _Messages("%(message)s")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
