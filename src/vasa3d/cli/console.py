"""What the user sees: progress and warnings on stderr, the result alone on stdout."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # values are imported where commands run, so that help is instant
    from vasa3d.types import Event

T = TypeVar("T")


class Reporter:
    """Progress, warnings and the result of one command.

    Progress bars appear only on a terminal. Warnings are told at once, each one once, and are
    part of the JSON result.

    Args:
        as_json: Print the result as JSON instead of a sentence.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._start = time.perf_counter()
        self._bar: Any = None
        self._told_compilation = False
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Tell something that the user should know about the result."""
        line = " ".join(text.split())
        if line in self.warnings:
            return
        self.warnings.append(line)
        self._write(f"warning: {line}")

    def follow(self, events: Iterable[Event], label: str) -> dict[str, Any]:
        """Run a long step to its end.

        Args:
            events: Its progress.
            label: What the bar says.

        Returns:
            The data of the last event.
        """
        data: dict[str, Any] = {}
        with self._progress(label) as update:
            for event in events:
                update(event.done, event.total, f"{label}: {event.stage}")
                if event.warning:
                    self.warn(event.message)
                data = event.data
        return data

    def count(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        """Pass items through, and show how many have been."""
        with self._progress(label) as update:
            update(0, total, label)
            for done, item in enumerate(items, start=1):
                yield item
                update(done, total, label)

    def finish(self, result: dict[str, Any], sentence: str) -> None:
        """Print the result: ``result`` as JSON, or the sentence.

        Args:
            result: Values by name; ``seconds``, ``peak_mb`` and ``warnings`` are added.
            sentence: The same for people.
        """
        if not self._as_json:
            sys.stdout.write(sentence + "\n")
            return
        whole = {
            **result,
            "seconds": round(self.seconds, 2),
            "peak_mb": peak_memory_mb(),
            "warnings": self.warnings,
        }
        sys.stdout.write(json.dumps(_plain(whole), indent=2, allow_nan=False) + "\n")

    @property
    def seconds(self) -> float:
        """Time since the command began."""
        return time.perf_counter() - self._start

    def _write(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(line + "\n")

    @contextmanager
    def _progress(self, label: str) -> Iterator[Any]:
        if not sys.stderr.isatty():
            with self._compilation(lambda name: None):
                yield lambda done, total, text: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
            task = bar.add_task(label, total=None)
            self._bar = bar

            def show_kernel(name: str) -> None:
                bar.update(task, description=f"compiling {name}")

            try:
                with self._compilation(show_kernel):
                    yield lambda done, total, text: bar.update(
                        task, completed=done, total=total or None, description=text
                    )
            finally:
                self._bar = None

    @contextmanager
    def _compilation(self, show: Callable[[str], None]) -> Iterator[None]:
        """Say once that kernels are being compiled, and ``show`` the name of each."""
        if "numba" not in sys.modules:  # a command without kernels should not wait for Numba
            yield
            return
        from vasa3d.kernels.compilation import watch_compilation

        def notify(name: str) -> None:
            if not self._told_compilation:
                self._told_compilation = True
                self._write("compiling for this processor, once: up to two minutes")
            show(name)

        with watch_compilation(notify):
            yield


def peak_memory_mb() -> float | None:
    """Largest memory of this process so far in megabytes, where the system tells."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


def _plain(value: Any) -> Any:
    """The same value in the types of JSON; NaN, which JSON lacks, becomes null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
