"""What is compiled is told, once."""

import os
import subprocess
import sys

import numpy as np
from numba import njit

from vasa3d.cli.console import Reporter
from vasa3d.kernels.compilation import watch_compilation
from vasa3d.types import Event


def test_kernels_are_named_when_they_are_compiled_and_not_again() -> None:
    @njit
    def double(x):
        return np.sort(x) * 2

    names: list[str] = []
    with watch_compilation(names.append):
        double(np.ones(3))
    assert names == ["test_compilation.double"]
    with watch_compilation(names.append):
        double(np.ones(4))
    assert len(names) == 1


def test_a_command_says_that_it_compiles_one_time(capsys) -> None:
    @njit
    def triple(x):
        return x * 3

    def work():
        for stage in ("one", "two"):
            triple(2 if stage == "one" else 2.5)
            yield Event(stage)

    Reporter(as_json=True).follow(work(), "test")
    assert capsys.readouterr().err.count("compiling for this processor") == 1


def test_the_cache_outlives_the_process(tmp_path) -> None:
    script = (
        "import numpy as np\n"
        "from vasa3d.kernels.compilation import watch_compilation\n"
        "from vasa3d.kernels.tiles import depth_order\n"
        "with watch_compilation(print): depth_order(np.ones(3, np.uint32))\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True,
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        ).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert said == [["tiles.depth_order"], []]
