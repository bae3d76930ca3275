"""Messages of libtiff, which writes to standard error by itself: they become lines of the log."""

from __future__ import annotations

import ctypes
import functools
import logging
from typing import Any

log = logging.getLogger("face2vec")

_LONGEST = 500

_kept: list[Any] = []
"""What libtiff calls; it must live as long as the process."""


@functools.cache
def redirect() -> bool:
    """Send the messages of libtiff to the log of face2vec, level INFO; returns whether it worked.

    Pillow has no function for it. Where libtiff is a part of Pillow's own module, as on Windows,
    nothing is changed.
    """
    from PIL import _imaging

    try:
        library, c = ctypes.CDLL(_imaging.__file__), ctypes.CDLL(None)
        setters = (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler)
        formatted = c.vsnprintf
    except (AttributeError, OSError, TypeError):
        return False
    formatted.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]

    prototype = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)

    def handle(where: bytes | None, text: bytes, values: int) -> None:
        message = ctypes.create_string_buffer(_LONGEST)
        formatted(message, _LONGEST, text, values)
        words = b": ".join(part for part in (where, message.value) if part)
        log.info("libtiff: %s", words.decode("utf-8", "backslashreplace"))

    handler = prototype(handle)
    _kept.append(handler)
    for setter in setters:
        setter.restype, setter.argtypes = ctypes.c_void_p, [prototype]
        setter(handler)
    return True
