"""``vasa3d doctor``: what is installed, what will run, what is missing and how to get it."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from vasa3d import __version__
from vasa3d.cli.console import Reporter
from vasa3d.cli.options import AsJson

MODULES = {
    "pillow": "PIL.Image",
    "pillow-heif": "pillow_heif",
    "scikit-image": "skimage",
}
"""Modules of the distributions that are not imported by their own names."""
ENCODERS = {"libx264": "mp4 and mov", "aac": "sound in videos", "prores_ks": "transparent mov"}
ASSETS = ("creases", "head", "latent", "motion", "pronunciation", "speech")
VOICES = ("espeak-ng", "flite", "festival")

_LIBRARY_HINT = (
    "install the system's OpenGL and GLib libraries (Debian, Ubuntu: apt-get install libgl1 "
    "libglib2.0-0), or replace OpenCV by its build that needs neither: pip install "
    "--force-reinstall --no-deps opencv-contrib-python-headless==4.11.0.86"
)
_REINSTALL_HINT = (
    "install vasa3d again, in the folder of its sources: pip install --force-reinstall --no-deps ."
)


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis."""

    name: str
    ok: bool
    detail: str
    hint: str = ""
    needed: bool = True


def doctor(as_json: AsJson = False) -> None:
    """Tell what will run here, and what is missing.

    Ends with exit code 2 if something is missing that the product needs.

    \b
    Examples:
      vasa3d doctor
      vasa3d doctor --json
    """
    reporter = Reporter(as_json)
    checks = [
        _python(),
        *map(_package, requirements()),
        *map(_asset, ASSETS),
        *_encoders(),
        *_extras(),
    ]
    if all(check.ok for check in checks if check.needed):
        checks.append(_kernels(reporter))
    broken = [check for check in checks if check.needed and not check.ok]
    runs = _what_runs({check.name for check in checks if not check.ok})
    result = {
        "ok": not broken,
        "version": __version__,
        "machine": _machine(),
        "runs": runs,
        "checks": [asdict(check) for check in checks],
    }
    reporter.finish(result, _page(result, checks))
    if broken:
        raise typer.Exit(2)


def requirements() -> list[str]:
    """Names of the distributions that this package asks for here, without those of its extras."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        lines = requires("vasa3d") or []
    except PackageNotFoundError:  # run from a source tree that is not installed
        return sorted(MODULES)
    elsewhere = ["extra ==", *(['sys_platform != "win32"'] if sys.platform == "win32" else [])]
    lines = [line for line in lines if not any(marker in line for marker in elsewhere)]
    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines]


def _python() -> Check:
    version = platform.python_version()
    ok = (3, 10) <= sys.version_info[:2] <= (3, 12)
    return Check("python", ok, version, "" if ok else "use Python 3.10, 3.11 or 3.12")


def _package(name: str) -> Check:
    from importlib.metadata import version

    try:
        importlib.import_module(MODULES.get(name, name))
        return Check(name, True, version(name))
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            return Check(name, False, "not installed", f"pip install {name}")
        return Check(name, False, str(error), _LIBRARY_HINT)


def _asset(name: str) -> Check:
    from vasa3d.errors import MissingError
    from vasa3d.weights import load_asset, sha256

    try:
        load_asset(name)
        return Check(f"asset {name}", True, f"sha256 {sha256(name)[:16]}")
    except MissingError as error:
        return Check(f"asset {name}", False, error.message, _REINSTALL_HINT)
    except Exception as error:  # whatever a damaged file makes a reader say
        return Check(f"asset {name}", False, f"unreadable: {error}", _REINSTALL_HINT)


def _encoders() -> list[Check]:
    try:
        import av
    except ImportError:
        return []
    hint = "pip install --force-reinstall av"
    return [
        Check(f"encoder {name}", ok, use if ok else f"missing: no {use}", "" if ok else hint)
        for name, use in ENCODERS.items()
        for ok in [name in av.codecs_available]
    ]


def _kernels(reporter: Reporter) -> Check:
    """Whether the kernels of the real-time path are compiled; if not, this compiles them."""
    from vasa3d.avatar.live import warm_up
    from vasa3d.kernels.compilation import watch_compilation
    from vasa3d.motion.generator import warm_up as warm_up_speech
    from vasa3d.types import Event

    names: list[str] = []

    def steps() -> Iterator[Event]:
        yield Event("kernels")
        with watch_compilation(names.append):
            warm_up()
            warm_up_speech()

    start = time.perf_counter()
    try:
        reporter.follow(steps(), "check")
    except Exception as error:  # whatever a broken compiler or cache says
        return Check(
            "kernels",
            False,
            f"do not run: {error}",
            "run vasa3d doctor --debug, and report what it prints",
        )
    if not names:
        return Check("kernels", True, "compiled for this processor")
    seconds = time.perf_counter() - start
    return Check("kernels", True, f"{len(names)} compiled just now, in {seconds:.0f} s")


def _extras() -> list[Check]:
    """What only some commands use, and what the product does without."""
    checks = []
    for voice in VOICES:
        found = shutil.which(voice) is not None
        detail = "found" if found else "not installed; only vasa3d train speech uses it"
        hint = "" if found else f"install the system package {voice}"
        checks.append(Check(voice, found, detail, hint, needed=False))
    return [*checks, _gpu()]


def _gpu() -> Check:
    """Whether ``--device cuda`` works."""
    name = "device cuda"
    try:
        import torch

        from vasa3d.errors import MissingError
        from vasa3d.renderer.cuda import find_rasterizer
    except ImportError as error:
        return Check(name, False, f"not usable: {error}", needed=False)
    try:
        find_rasterizer()
    except MissingError as error:
        return Check(name, False, error.message, error.hint, needed=False)
    return Check(name, True, torch.cuda.get_device_name(), needed=False)


def _what_runs(missing: set[str]) -> dict[str, bool]:
    """Command -> whether everything that it uses is there."""
    media = {"python", "numpy", "numba", "scipy", "safetensors", "pillow", "av", "soxr"}
    sound = media | {"asset speech", "asset motion", "asset latent"}
    face = media | {"pillow-heif", "mediapipe", "asset head"}  # mediapipe brings OpenCV
    film = face | {"encoder libx264", "encoder aac"}
    photo = face | {"pymatting", "torch", "asset creases"}
    page = face | sound | {"soundfile"}
    uses = {
        "create": photo,
        "talk": photo | sound | film,
        "animate": sound | film,
        "motion": sound,
        "motion of a video": face,
        "render": film,
        "export": page,
        "serve": page | {"starlette", "uvicorn", "websockets"},
        "train speech": media | {"torch", *VOICES},
    }
    return {command: not needs & missing for command, needs in uses.items()}


def _machine() -> dict[str, Any]:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": cores,
        "memory_gb": _memory_gb(),
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _page(result: dict[str, Any], checks: list[Check]) -> str:
    machine = result["machine"]
    lines = [
        f"vasa3d {result['version']} on {machine['system']}",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB",
        "",
    ]
    for check in checks:
        mark = "ok " if check.ok else ("!! " if check.needed else "-  ")
        lines.append(f"{mark} {check.name:18} {check.detail}")
        if check.hint:
            lines.append(f"    {'':18} {check.hint}")
    lines += [
        "",
        *(f"{name:18} {'runs' if ok else 'cannot run'}" for name, ok in result["runs"].items()),
    ]
    return "\n".join(lines)
