"""Telling when kernels are compiled: on a processor's first run, and never again while the cache lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from numba.core import event


class _Listener(event.Listener):
    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify

    def on_start(self, event: event.Event) -> None:
        assert event.data is not None
        function = event.data["dispatcher"].py_func
        if not function.__module__.startswith("numba."):
            self._notify(f"{function.__module__.rpartition('.')[2]}.{function.__name__}")

    def on_end(self, event: event.Event) -> None:
        pass


@contextmanager
def watch_compilation(notify: Callable[[str], None]) -> Iterator[None]:
    """Call ``notify`` with the name of each kernel when its compilation begins.

    Kernels that come from the cache are not compiled. Kernels of other libraries are told as well,
    but not the parts that Numba puts into them.
    """
    with event.install_listener("numba:compile", _Listener(notify)):
        yield
