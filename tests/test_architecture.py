"""The house of docs/architecture.md: imports point down, and the library does not print."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "vasa3d"
FILES = sorted(PACKAGE.rglob("*.py"))


def read_floors() -> dict[str, int]:
    """Room -> floor, from the table of the architecture page."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    floors = {}
    for number, rooms in re.findall(r"^\| (\d+) \| ([^|]*) \|", text, re.MULTILINE):
        for room in re.findall(r"`(\w+)`", rooms):
            floors[room] = int(number)
    return floors


FLOORS = read_floors()


def room_of(path: Path) -> str | None:
    """Room that a file belongs to; ``None`` for the package's own front door."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return None if parts[0] == "__init__" else parts[0]


def imported_rooms(tree: ast.AST) -> set[str]:
    """Rooms that a module imports from; ``vasa3d.__version__`` is at the front door."""
    rooms = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("vasa3d.")}
    return {room for room in rooms if not room.startswith("__")}


def breaches(source: str, room: str | None) -> list[str]:
    """What is wrong with a module's imports and calls."""
    tree = ast.parse(source)
    found = []
    for other in sorted(imported_rooms(tree)):
        if room is None or other == room:
            continue
        if other not in FLOORS:
            found.append(f"imports {other}, which is no room of the house")
        elif FLOORS[other] >= FLOORS[room]:
            found.append(f"imports {other} (floor {FLOORS[other]}) from floor {FLOORS[room]}")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if any(alias.name == "*" for alias in node.names):
                found.append(f"star import in line {node.lineno}")
            if node.level > 1:
                found.append(f"import from a parent in line {node.lineno}")
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if called and node.func.id == "print" and room != "cli":
            found.append(f"print in line {node.lineno}")
    return found


def test_the_page_lists_the_floors() -> None:
    assert FLOORS["types"] == 1 and FLOORS["cli"] == max(FLOORS.values())
    assert FLOORS["kernels"] < FLOORS["renderer"] < FLOORS["avatar"]


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path) for path in FILES} - {None, "__main__"}
    assert rooms <= set(FLOORS), f"rooms without a floor: {sorted(rooms - set(FLOORS))}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_and_nothing_prints(path: Path) -> None:
    room = room_of(path)
    if room == "__main__":
        room = "cli"
    if room is not None and room not in FLOORS:
        pytest.fail(f"{room} is no room of docs/architecture.md")
    assert breaches(path.read_text(encoding="utf-8"), room) == []


@pytest.mark.parametrize(
    ("source", "room"),
    [
        ("from vasa3d.avatar.file import load", "head"),
        ("import vasa3d.cli", "pipeline"),
        ("from vasa3d import renderer", "kernels"),
        ("from vasa3d.geometry import meshes", "kernels"),
        ("from vasa3d.attic import old", "head"),
        ("def f():\n    from vasa3d.cli import main", "head"),
        ("from numpy import *", "head"),
        ("from ..types import Camera", "head"),
        ("print('hello')", "head"),
    ],
)
def test_the_check_itself_finds_breaches(source: str, room: str) -> None:
    assert breaches(source, room)


def test_the_check_itself_lets_good_code_pass() -> None:
    good = "from vasa3d import __version__\nfrom vasa3d.types import Frame\n"
    good += "from vasa3d.head.model import HeadModel\n"
    assert breaches(good, "head") == []
    assert breaches("print('usage')", "cli") == []
