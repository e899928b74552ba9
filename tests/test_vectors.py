"""The inner loop of compositing becomes vector instructions as wide as the processor has them.

Each case compiles the kernel in a process of its own, as Numba fixes its target when it is imported.
"""

import os
import platform
import subprocess
import sys

import pytest
from llvmlite import binding

COMPILE = """
from numba import float32, int64, njit, types
from vasa3d.kernels import rasterization
kernel = njit(nogil=True, fastmath=rasterization._FAST)(rasterization._blend_splat.py_func)
kernel.compile((float32[::1], int64, int64, float32[::1], types.none))
assembly = kernel.inspect_asm(kernel.signatures[0])
print(*(assembly.count(name) for name in ("zmm", "ymm", "vfmadd")))
"""


def count_registers(**target: str) -> tuple[int, int, int]:
    """Mentions of 512-bit and 256-bit registers and of fused multiply-adds."""
    result = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, timeout=300,
        env=os.environ | target,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    zmm, ymm, fused = (int(word) for word in result.stdout.split())
    return zmm, ymm, fused


def test_this_processor_gets_its_widest_vectors() -> None:
    features = binding.get_host_cpu_features()
    if not features.get("avx2"):
        pytest.skip("this processor has neither AVX2 nor AVX-512")
    zmm, ymm, fused = count_registers()
    # Compilers keep to 256 bits on Intel's AVX-512, whose clock falls with wider vectors.
    if features.get("avx512f") and binding.get_host_cpu_name().startswith("znver"):
        assert zmm > 50
    assert zmm + ymm > 50
    assert fused >= 10


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="needs an x86 compiler")
@pytest.mark.parametrize(("name", "wide"), [("znver4", True), ("znver3", False)])
def test_known_processors_get_their_widest_vectors(name: str, wide: bool) -> None:
    zmm, ymm, fused = count_registers(NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES="")
    assert (zmm > 50) == wide
    assert zmm + ymm > 50
    assert fused >= 10
