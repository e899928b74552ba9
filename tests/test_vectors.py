"""Inner loops of kernels become vector instructions as wide as the processor has them.

Each case compiles the kernel in a process of its own, as Numba fixes its target when it is imported.
"""

import os
import platform
import subprocess
import sys

import pytest
from llvmlite import binding

COMPILE = """
import sys
from numba import float32, int64, njit, types
from vasa3d.kernels import gradients, rasterization, residual
line, place = float32[::1], (int64, int64)
if sys.argv[1] == "drawing":
    source, types_of = rasterization._blend_splat, (line, *place, line, types.none)
elif sys.argv[1] == "residual":
    source, types_of = residual._apply, (float32[:, ::1], float32[:, ::1])
else:
    source, types_of = gradients._collect, (line, *place, line, line, types.none)
# Without the cache, which another processor may have filled.
kernel = njit(**{**source.targetoptions, "cache": False})(source.py_func)
kernel.compile(types_of)
assembly = kernel.inspect_asm(kernel.signatures[0])
print(*(assembly.count(name) for name in ("zmm", "ymm", "vfmadd", "vdivps")))
"""


def count_registers(kernel: str, **target: str) -> tuple[int, int, int, int]:
    """Mentions of 512-bit and 256-bit registers, fused multiply-adds and divisions of vectors."""
    result = subprocess.run(
        [sys.executable, "-c", COMPILE, kernel], capture_output=True, text=True, timeout=300,
        env=os.environ | target,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    zmm, ymm, fused, divided = (int(word) for word in result.stdout.split())
    return zmm, ymm, fused, divided


@pytest.mark.parametrize("kernel", ["drawing", "derivative", "residual"])
def test_this_processor_gets_its_widest_vectors(kernel: str) -> None:
    features = binding.get_host_cpu_features()
    if not features.get("avx2"):
        pytest.skip("this processor has neither AVX2 nor AVX-512")
    zmm, ymm, fused, divided = count_registers(kernel)
    # Compilers keep to 256 bits on Intel's AVX-512, whose clock falls with wider vectors.
    if features.get("avx512f") and binding.get_host_cpu_name().startswith("znver"):
        assert zmm > 50
    assert zmm + ymm > 50
    assert fused >= 10
    # Where a kernel divides, it does so in its inner loop.
    assert (divided > 0) == (kernel != "drawing")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="needs an x86 compiler")
@pytest.mark.parametrize("kernel", ["drawing", "derivative", "residual"])
@pytest.mark.parametrize(("name", "wide"), [("znver4", True), ("znver3", False)])
def test_known_processors_get_their_widest_vectors(kernel: str, name: str, wide: bool) -> None:
    zmm, ymm, fused, divided = count_registers(kernel, NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES="")
    assert (zmm > 50) == wide
    assert zmm + ymm > 50
    assert fused >= 10
    # Where a kernel divides, it does so in its inner loop.
    assert (divided > 0) == (kernel != "drawing")
