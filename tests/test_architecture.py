"""The library's shape, read from its source: layers, purity, dependencies."""

import ast
from pathlib import Path

import pytest

import ais_jax

SOURCES = sorted(Path(ais_jax.__file__).parent.glob("*.py"))
CHAIN = ["numerics", "path", "hmc", "ais", "proposals", "models", "estimators"]
BASE = {"registry", "types", "batching", "schedules"}
IMPORTS = {
    "types": set(),
    "registry": set(),
    "batching": {"types"},
    "adaptation": {"types"},
    "optimizers": {"types", "registry"},
    "precision": {"types", "registry"},
    "numerics": {"types"},
    "schedules": {"types", "registry"},
    "path": {"types", "numerics"},
    "hmc": {"types", *CHAIN[:2]},
    "ais": {*BASE, *CHAIN[:3]},
    "proposals": {*BASE, *CHAIN[:4]},
    "models": {*BASE, *CHAIN[:5]},
    "networks": {*BASE, *CHAIN[:6], "precision"},
    "estimators": {*BASE, *CHAIN[:6]},
    "training": {*BASE, *CHAIN, "adaptation"},
    "tuning": {*BASE, *CHAIN[:5]},
    "evaluation": {*BASE, *CHAIN[:5], "tuning"},
    "sharding": {"types", "training"},
    "toy": {*BASE, *CHAIN[:5]},
}
IMPORTS["__init__"] = set(IMPORTS)  # it may name anything that users import from it
LIBRARIES = {"jax", "flax", "optax", "numpy", "jaxtyping"}
STANDARD = {"collections", "difflib", "functools", "inspect", "math", "typing"}

each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)


def imported(source):
    """Every module name that a file imports, as written."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source.name} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@each_source
def test_modules_import_only_from_the_left(source):
    ours = {n.split(".")[1] for n in imported(source) if n.startswith("ais_jax.")}
    assert ours <= IMPORTS[source.stem]


@each_source
def test_only_the_libraries_of_a_plain_install_are_needed(source):
    roots = {name.split(".")[0] for name in imported(source)}
    assert roots <= LIBRARIES | STANDARD | {"ais_jax"}


@each_source
def test_the_library_neither_prints_nor_opens(source):
    calls = [n for n in ast.walk(ast.parse(source.read_text())) if type(n) is ast.Call]
    names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    assert not names & {"print", "open", "input", "exec", "eval"}


def test_gradients_are_stopped_in_the_estimators_only():
    stopping = [s.stem for s in SOURCES if "stop_gradient" in s.read_text()]
    assert stopping == ["estimators"]
