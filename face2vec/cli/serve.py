"""``face2vec serve``."""

from __future__ import annotations

import contextlib
import logging
import signal
import tempfile
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from face2vec.cli.common import FilePath, say, verbose_option
from face2vec.errors import GalleryNotFoundError, MissingExtraError, SettingsError
from face2vec.gallery.schema import FILE

if TYPE_CHECKING:
    from face2vec.server.settings import Settings

_NEEDED = ("fastapi", "uvicorn", "jinja2", "multipart", "prometheus_client")
"""Packages of the extra ``server``."""


@click.command("serve")
@click.argument("gallery", type=FilePath(path_type=Path, file_okay=False), required=False)
@click.option("--demo", is_flag=True, help="Serve drawn people; nothing is needed or kept.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 for a free one.",
)
@click.option(
    "--root",
    "roots",
    type=FilePath(path_type=Path),
    multiple=True,
    help="Folder that may be indexed from the pages; may be repeated.",
)
@click.option(
    "--token-file",
    type=FilePath(path_type=Path),
    help="File with the token; otherwise FACE2VEC_TOKEN, otherwise a new one.",
)
@click.option(
    "--read-token-file",
    type=FilePath(path_type=Path),
    help="File with a second token, which can only read; otherwise FACE2VEC_READ_TOKEN.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Further name of this service, such as that of a proxy; may be repeated.",
)
@click.option("--show-paths", is_flag=True, help="Show paths of photos to the read-only token.")
@click.option("--log-names", is_flag=True, help="Write names of people to the log of edits.")
@click.option("--no-browser", is_flag=True, help="Do not open the page in a browser.")
@verbose_option
def serve_command(
    gallery: Path | None,
    demo: bool,
    host: str,
    port: int,
    roots: tuple[Path, ...],
    token_file: Path | None,
    read_token_file: Path | None,
    hosts: tuple[str, ...],
    show_paths: bool,
    log_names: bool,
    no_browser: bool,
) -> None:
    """Serve GALLERY as pages for a browser and as an HTTP API.

    The address that is printed contains a token; without it nothing is answered. The service
    listens on this machine only, unless --host says otherwise.
    """
    if demo and gallery is not None:
        raise click.UsageError("give a gallery or --demo, not both")
    if not demo and gallery is None:
        raise click.UsageError("give a gallery, or --demo")
    _check_installed()
    from face2vec.server.settings import (
        READ_TOKEN_VARIABLE,
        Settings,
        checked_roots,
        new_token,
        token_from,
    )

    token = token_from(token_file)
    read_token = token_from(read_token_file, variable=READ_TOKEN_VARIABLE)
    with _ended_by_signals() as end_if_asked, _gallery(gallery, roots) as (folder, photos):
        end_if_asked()
        settings = Settings(
            folder,
            host,
            port,
            new_token() if token is None else token,
            read_token=read_token,
            roots=(*checked_roots(roots), *photos),
            hosts=hosts,
            show_paths=show_paths,
            log_names=log_names,
        )
        with _audit_log():
            _run(settings, not no_browser)


def _check_installed() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingExtraError("face2vec serve", missing[0], "server")


def _run(settings: Settings, open_browser: bool) -> None:
    from face2vec.server.app import run

    def started(address: str) -> None:
        say(f"{address}\nCtrl-C ends the service.")
        if open_browser:
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(address)

    try:
        run(settings, started)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}; "
            "choose another --port"
        ) from error


@contextlib.contextmanager
def _gallery(folder: Path | None, roots: Sequence[Path]) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    """The gallery, and folders that may be indexed; without a folder one of drawn people."""
    if folder is not None:
        if not roots and not (folder / FILE).exists():
            raise GalleryNotFoundError(
                f"there is no gallery in {folder}; name another folder, or give --root PHOTOS to "
                "make one from the page Jobs"
            )
        yield folder, ()
        return
    from face2vec.demo import gallery_to_try

    with tempfile.TemporaryDirectory(prefix="face2vec-demo-") as place:
        made = Path(place).resolve() / "demo"
        yield gallery_to_try(made, say), (made / "photos",)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[Callable[[], None]]:
    """Let SIGTERM end the process as Ctrl-C does, so that nothing is left behind.

    Python drops an exception that is raised while an object is destroyed. What is yielded raises it
    again. Further SIGTERMs are ignored until the process has ended: they would stop the tidying up.
    """
    asked: int | None = None

    def end(number: int, _: object = None) -> None:
        nonlocal asked
        asked = asked or number
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(128 + signal.SIGTERM)

    def end_if_asked() -> None:
        if asked is not None:
            end(asked)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, end)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it may be ignored
        before[signal.SIGINT] = signal.signal(signal.SIGINT, end)
    try:
        yield end_if_asked
    finally:
        for number, handler in before.items():
            if not number == asked == signal.SIGTERM:
                signal.signal(number, handler)


@contextlib.contextmanager
def _audit_log() -> Iterator[None]:
    """Print edits, with time and client, to standard error."""
    from face2vec.cli.common import _Messages

    logger = logging.getLogger("face2vec.audit")
    handler: logging.Handler = _Messages("%(asctime)s %(message)s")
    logger.addHandler(handler)
    level, logger.propagate = logger.level, False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = True
