"""The rooms import in one direction: the table in docs/architecture.md is the rule that is checked."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from polysense.methods.table import recipes

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "polysense"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def stated() -> dict[str, set[str]]:
    """What each room may import, from the table's last column."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    return {room: set(re.findall(r"`([\w.]+)`", allowed)) for room, allowed in rows}


def imported(source: str, *, everywhere: bool = True) -> Iterator[str]:
    """Every module that a source imports; with ``everywhere`` those inside functions too."""
    tree = ast.parse(source)
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            if node.module == "polysense":
                yield from (f"polysense.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def strays(room: str, source: str, allowed: set[str]) -> list[str]:
    """The imports of other rooms that are not allowed. ``modalities.base`` allows that module alone."""
    found = []
    for module in imported(source):
        name = module.removeprefix("polysense.")
        if name == module or name.split(".")[0] == room:
            continue
        if not any(name == one or name.startswith(one + ".") for one in allowed):
            found.append(module)
    return found


def sources(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def test_the_table_states_every_room() -> None:
    assert sorted(stated()) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_the_table_states(room: str) -> None:
    allowed = stated()[room]
    found = {str(path): strays(room, path.read_text(encoding="utf-8"), allowed) for path in sources(room)}
    assert {path: modules for path, modules in found.items() if modules} == {}


def test_the_table_has_no_circle() -> None:
    below = {
        room: {name.split(".")[0] for name in allowed} & set(ROOMS) for room, allowed in stated().items()
    }
    while below:
        bottom = [room for room, allowed in below.items() if not allowed]
        assert bottom, f"these import each other: {sorted(below)}"
        below = {room: allowed.difference(bottom) for room, allowed in below.items() if room not in bottom}


def test_errors_imports_nothing_of_the_package() -> None:
    modules = imported((PACKAGE / "errors.py").read_text(encoding="utf-8"))
    assert [module for module in modules if module.startswith("polysense")] == []


@pytest.mark.parametrize("room", ["objectives", "report"])
def test_what_a_room_needs_from_outside(room: str) -> None:
    """Objectives know torch alone; the report reads files and needs no torch at all."""
    libraries = {"objectives": {"torch"}, "report": {"numpy", "pandas", "PIL", "yaml"}}[room]
    outside = {
        module.split(".")[0]
        for path in sources(room)
        for module in imported(path.read_text(encoding="utf-8"))
    }
    assert outside - set(sys.stdlib_module_names) - {"polysense"} <= libraries


def test_no_code_asks_which_method_it_is() -> None:
    """A comparison with a method's name would be a special case that belongs into the recipe."""
    names = set(recipes())
    asking = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare | ast.MatchValue):
                words = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)}
                if names & {word for word in words if isinstance(word, str)}:
                    asking.append(f"{path.name}:{node.lineno}")
    assert asking == []


@pytest.mark.parametrize(
    ("source", "stray"),
    [
        ("from polysense.training.fit import fit", "polysense.training.fit"),
        ("def f():\n    import polysense.front", "polysense.front"),
        ("from polysense import report", "polysense.report"),
        ("from polysense.modalities.vision.store import Pictures", "polysense.modalities.vision.store"),
    ],
)
def test_a_stray_import_is_found(source: str, stray: str) -> None:
    assert strays("methods", source, {"errors", "encoders", "modalities.base"}) == [stray]


def test_allowed_imports_are_fine() -> None:
    source = "import torch\nfrom polysense.modalities.base import View\nfrom polysense.methods import engine"
    assert strays("methods", source, {"modalities.base"}) == []
