"""The house's own rules: floors, circles, public names, what a fresh process imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import paramserver

ROOT = Path(paramserver.__file__).parent
#: Module (or room) → floor. A module's own entry goes before its room's.
FLOORS = {
    "_version": 0, "messages": 0, "errors": 0, "views": 0, "profile": 0, "ending": 0,
    "penalties": 1, "quadratic": 1, "identify": 1, "inference": 1, "summary": 1, "certificate": 1, "consensus": 1,
    "workers.design": 1, "workers.at_hand": 1, "workers.fingerprint": 1, "workers.problems": 1, "workers.solvers": 1,
    "server.slots": 2, "server.pace": 2, "server.dispatch": 2, "server.gather": 2, "server.null": 2,
    "server.findings": 2, "workers.descent": 1,
    "server.inferring": 2, "server.stopping": 2, "server.record": 2, "server.census": 2, "server.changes": 2,
    "server.intake": 2, "server.hessians": 2, "server.timesheet": 2,
    "server.least_norm": 2, "server.spec": 2, "server.parameters": 2, "server.verifier": 2, "server.core": 2,
    "server.checkpoint": 2, "server.reading": 2, "workers.tasks": 2,
    "server.gate": 2, "server.stored": 2,
    "server.seal": 2, "server.resuming": 2, "server.places": 2, "server.store": 2,
    "server.actor": 3, "server.handle": 3, "server.durable": 3, "server.engine": 3, "server.takeover": 3,
    "workers.ledger": 3, "simulator": 3, "testing": 3, "workers.chunks": 3, "workers.cache": 3,
    "workers.blocks": 3,
    "workers.runner": 4,
    "supervisor": 5, "run": 5, "environment": 5, "transport": 5, "launching": 5, "paths": 5, "asking": 5, "reaching": 5,
    "resumption": 5, "plugins": 5,
    "datasets": 6, "cluster": 6, "examples": 6,
    "cli": 7, "__main__": 8, "": 8,
    "server": 0, "workers": 0,  # the rooms' own __init__ import nothing
}  # fmt: skip
NO_DASK = [name for name, floor in FLOORS.items() if 0 < floor <= 2 or name in ("simulator", "testing")]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def floor_of(module: str) -> int:
    while module not in FLOORS:
        module, _, _ = module.rpartition(".")
    return FLOORS[module]


def imports_of(path: Path) -> set[str]:
    """Modules of ours that are imported when this one is (not inside functions)."""
    found: set[str] = set()
    stack: list[ast.AST] = list(ast.parse(path.read_text()).body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("paramserver"):
            found.add((node.module or "").removeprefix("paramserver").lstrip("."))
        elif isinstance(node, ast.Try) or (isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test)):
            stack += node.body
    return found


MODULES = sorted({*ROOT.rglob("*.py"), *(ROOT / "workers").rglob("*.py")})  # the former follows no symlink


def test_every_module_has_a_floor() -> None:
    assert {"workers.problems.base", "server.core"} <= set(map(module_of, MODULES))
    for path in MODULES:
        floor_of(module_of(path))


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_imports_point_down_or_across(path: Path) -> None:
    here = floor_of(module_of(path))
    up = {name: floor_of(name) for name in imports_of(path) if floor_of(name) > here}
    assert not up, f"{module_of(path)} is on floor {here} and imports {up}"


def test_no_circles() -> None:
    graph = {module_of(path): imports_of(path) for path in MODULES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join((*trail, module))
        if module not in done:
            for target in graph.get(module, ()):
                if target != module:
                    visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_lower_floors_are_free_of_dask() -> None:
    lines = [f"import paramserver.{name}" for name in NO_DASK]
    look = "print([m for m in sys.modules if m.split('.')[0] in ('dask', 'distributed')])"
    code = "\n".join([*lines, "import sys", look])
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import paramserver, sys; print([m for m in ('dask', 'distributed', 'numpy', 'scipy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == "[]"


def test_public_names_are_sorted_there_and_documented() -> None:
    assert paramserver.__all__ == sorted(paramserver.__all__)
    for name in paramserver.__all__:
        value = getattr(paramserver, name)
        assert name == "__version__" or value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'lasso'"):
        paramserver.lasso  # noqa: B018


def test_no_module_is_a_crowd() -> None:
    """A file of over 400 lines is two."""
    sizes = {module_of(path): path.read_text().count("\n") for path in MODULES}
    assert {name: n for name, n in sizes.items() if n > 400} == {}


def test_no_module_has_the_name_of_a_public_function() -> None:
    """Importing such a module would put it in the function's place."""
    modules = {path.stem for path in ROOT.glob("*.py")} | {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert set(paramserver.__all__) & modules == {"cluster", "datasets", "errors", "testing"}
