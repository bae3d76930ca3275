"""What has to be made again in a child process after a fork.

A fork copies memory and not threads: pools have no workers, locks that another thread held stay
locked, and the threads of runtimes are gone. gunicorn's ``--preload`` and `multiprocessing` with
"fork" do that. Objects that depend on any of these say here what to do in the child.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable

_methods: list[weakref.WeakMethod[Callable[[], None]]] = []
_functions: list[Callable[[], None]] = []


def renew_after_fork(method: Callable[[], None]) -> None:
    """Have a method called in a child process, before anything else runs there.

    Args:
        method: a method, whose object is not kept alive by this; it must not wait for anything.
    """
    _methods[:] = [one for one in _methods if one() is not None]
    _methods.append(weakref.WeakMethod(method))


def run_after_fork(function: Callable[[], None]) -> Callable[[], None]:
    """Have a function of a module called in a child process; can be used as a decorator."""
    _functions.append(function)
    return function


def abandon(*things: object) -> None:
    """Never delete, not even at the end of this process, what belongs to the parent process."""
    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _renew() -> None:
    for function in _functions:
        function()
    for reference in _methods:
        method = reference()
        if method is not None:
            method()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_renew)
