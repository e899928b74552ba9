"""Running a compiled kernel over ranges on several threads.

Kernels here are compiled without the interpreter lock and write disjoint parts of their outputs, so
threads only share out work: results do not depend on their number. Ranges are handed out one by
one, so a busy core does not hold the others up. Plain threads also compile in half the time of
Numba's own, survive ``fork`` and can be entered from several callers at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count

_num_threads = 0
_pool: ThreadPoolExecutor | None = None


def get_num_threads() -> int:
    """Threads in use: ``VASA3D_NUM_THREADS``, or the processors this process may run on."""
    global _num_threads
    if _num_threads == 0:
        text = os.environ.get("VASA3D_NUM_THREADS", "")
        _num_threads = int(text) if text.isdigit() and int(text) > 0 else _usable_processors()
    return _num_threads


def set_num_threads(number: int) -> None:
    """Use this many threads from now on; results stay the same to the last bit.

    Raises:
        ValueError: ``number`` is less than one.
    """
    global _num_threads
    if number < 1:
        raise ValueError(f"number of threads must be at least 1, got {number}")
    _num_threads = number
    _forget_pool()


def run_chunks(kernel: Callable[[int, int], object], total: int, chunk: int) -> None:
    """Call ``kernel(start, stop)`` for consecutive ranges that cover ``range(total)``.

    Args:
        kernel: Callable that releases the interpreter lock; called from several threads at once.
        total: End of the covered range.
        chunk: Length of every range but the last.
    """
    starts = count(0, chunk)

    def work() -> None:
        while (start := next(starts)) < total:
            kernel(start, min(start + chunk, total))

    num_helpers = min(get_num_threads(), -(-total // chunk)) - 1
    helpers: list[Future[None]] = []
    if num_helpers > 0:
        pool = _shared_pool()
        helpers = [pool.submit(work) for _ in range(num_helpers)]
    try:
        work()
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.result()


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _shared_pool() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max(1, get_num_threads() - 1), thread_name_prefix="vasa3d")
    return _pool


def _forget_pool() -> None:
    """Let the next call start fresh threads: their number changed, or a forked child has none."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
