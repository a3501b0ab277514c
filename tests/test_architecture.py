"""The shape of the code, read from its source: layers, rooms, purity, dependencies."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import ais_jax
import experiments

LIBRARY = Path(ais_jax.__file__).parent
SOURCES = sorted(LIBRARY.rglob("*.py"))
GROUND = {"types", "checks", "numerics", "batching"}
IMPORTS = {  # what each room may import, beside its own files and the ground's
    "annealing": set(),
    "evidence": {"annealing"},
    "models": {"annealing", "evidence"},
    "training": {"annealing", "models"},
}
NEEDS_FLAX = {"models", "training"}  # these alone import Flax and Optax
LIBRARIES = {"jax", "numpy", "jaxtyping"}
FLAX = {"flax", "optax"}
NUMPYRO = {"complements", "numpyro_runs", "priors"}  # imported where they are called
OF_EXTRAS = {  # what files import within functions
    "arviz_objects": {"arviz", "arviz_base"},
    "budget": {"time"},
    "checkpoint": {"os", "pathlib"},
    "digests": {"re"},
    "row_search": {"time"},
    "comparison": {"matplotlib", "pandas"},
    "estimates": {"matplotlib"},
    "stepping": {"matplotlib"},
    "pymc_models": {"pymc", "pytensor"},
}
STANDARD = {
    "collections",
    "copy",
    "dataclasses",
    "difflib",
    "functools",
    "hashlib",
    "importlib",
    "inspect",
    "math",
}
STANDARD |= {"operator", "types", "typing"}

each_source = pytest.mark.parametrize(
    "source", SOURCES, ids=lambda p: str(p.relative_to(LIBRARY))
)


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


def files_imported(source):
    """The files of the library that a file imports, such as `annealing/path`."""
    known = {str(p.relative_to(LIBRARY).with_suffix("")): p for p in SOURCES}
    for name in imported(source):
        if name.startswith("ais_jax."):
            place = name.removeprefix("ais_jax.").replace(".", "/")
            yield place if place in known else place.rpartition("/")[0]


@pytest.mark.parametrize("room", IMPORTS)
def test_a_room_imports_only_from_those_below_it(room):
    allowed = {room, *IMPORTS[room], *GROUND}
    for source in (LIBRARY / room).glob("*.py"):
        theirs = {place.partition("/")[0] for place in files_imported(source)}
        assert theirs <= allowed, source


def test_the_ground_imports_itself_alone():
    assert {p.stem for p in LIBRARY.glob("*.py")} == {*GROUND, "__init__"}
    for name in GROUND:
        assert set(files_imported(LIBRARY / f"{name}.py")) <= GROUND


@each_source
def test_only_the_libraries_of_a_plain_install_are_needed(source):
    roots = {name.split(".")[0] for name in imported(source)}
    extras = {"numpyro"} if source.stem in NUMPYRO else set()
    extras = extras | OF_EXTRAS.get(source.stem, set())
    if source.parent.name in NEEDS_FLAX:
        extras = extras | FLAX
    assert roots <= LIBRARIES | STANDARD | {"ais_jax"} | extras


def test_the_library_is_imported_without_numpyro():
    code = "import sys; sys.modules['numpyro'] = None; import ais_jax"
    code += "; from ais_jax.evidence import bounded, numpyro_models"
    code += "; numpyro_models.from_numpyro(print)"
    options = {"capture_output": True, "text": True, "cwd": LIBRARY.parent}
    done = subprocess.run([sys.executable, "-c", code], **options)
    assert "ImportError: from_numpyro needs NumPyro: pip install" in done.stderr


@each_source
def test_the_library_neither_prints_nor_opens(source):
    calls = [n for n in ast.walk(ast.parse(source.read_text())) if type(n) is ast.Call]
    names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    assert not names & {"print", "open", "input", "exec", "eval"}


def test_gradients_are_stopped_where_derivatives_are_defined_only():
    stopping = [s.stem for s in SOURCES if "stop_gradient" in s.read_text()]
    assert stopping == ["derivatives", "estimators", "losses"]


def test_no_module_imports_itself_through_others():
    graph = {
        str(source.relative_to(LIBRARY).with_suffix("")): set(files_imported(source))
        for source in SOURCES
        if source.stem != "__init__"
    }
    while graph:
        free = {name for name, needs in graph.items() if not needs & graph.keys()}
        assert free, f"a circle of imports within {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in free}


def public(module):
    """A module's public functions, and the public methods of its public classes."""
    for name, item in vars(module).items():
        if name.startswith("_") or getattr(item, "__module__", "") != module.__name__:
            continue
        if inspect.isfunction(item):
            yield name, item
        elif inspect.isclass(item):
            for method in (m for m in vars(item) if not m.startswith("_")):
                function = vars(item)[method]
                if getattr(function, "__module__", "") == module.__name__:
                    yield f"{name}.{method}", function


@each_source
def test_every_public_function_is_annotated(source):
    parts = source.relative_to(LIBRARY.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts))
    for name, function in public(module):
        signature = inspect.signature(function)
        bare = {
            p.name for p in signature.parameters.values() if p.annotation is p.empty
        }
        assert not bare - {"self"}, f"{source.stem}.{name} leaves {bare} bare"
        assert signature.return_annotation is not signature.empty, name


@each_source
def test_no_file_is_longer_than_330_lines(source):
    assert len(source.read_text().splitlines()) <= 330


EXPERIMENTS = Path(experiments.__file__).parent
ROOMS = [
    "system",
    "data",
    "run",
    "evaluate",
    "doors",
    "paper",
]  # each may import from those before it
PLACES = sorted(EXPERIMENTS.rglob("*.py"))
each_place = pytest.mark.parametrize(
    "source", PLACES, ids=lambda p: str(p.relative_to(EXPERIMENTS))
)


def module_name(source):
    """A file's name as a module, such as experiments.run.train."""
    parts = source.relative_to(EXPERIMENTS.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(source):
    """The modules of `experiments` that a file imports, anywhere in it."""
    known = set(map(module_name, PLACES))
    names = {n for n in imported(source) if n.startswith("experiments.")}
    return {n if n in known else n.rpartition(".")[0] for n in names}


DOORS = {  # they put training and evaluation together
    "experiments.run.launch",
    "experiments.evaluate.decoder",
}


def room(name):
    """A module's room; the programs are a room above all others."""
    if name in DOORS:
        return "doors"
    parts = name.split(".")
    return parts[1] if len(parts) > 2 or parts[-1] in ROOMS else "programs"


def imports_of(name, imports, reached=()):
    """Every module that a module imports, directly or through others."""
    for other in imports[name] - set(reached):
        reached = imports_of(other, imports, (*reached, other))
    return reached


@each_place
def test_no_room_reaches_up(source):
    order = [*ROOMS, "programs"]
    mine = room(module_name(source))
    theirs = {room(name) for name in imported_modules(source)}
    assert theirs <= set(order[: order.index(mine) + 1])
    if mine == "programs":
        assert "programs" not in theirs


def test_no_experiments_module_imports_itself_through_others():
    imports = {module_name(p): imported_modules(p) for p in PLACES}
    for name in imports:
        assert name not in imports_of(name, imports)


def test_the_library_and_the_configs_import_no_experiments():
    for source in (*SOURCES, *EXPERIMENTS.parent.glob("configs/*.py")):
        assert not any(name.startswith("experiments") for name in imported(source))


def read_keys(source):
    """Lines that read a key of what is called config."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Attribute | ast.Subscript):
            value = node.value
            if isinstance(value, ast.Name) and value.id == "config":
                yield node.lineno


@pytest.mark.parametrize(
    "source",
    sorted((*EXPERIMENTS.glob("run/*.py"), *EXPERIMENTS.glob("evaluate/*.py"))),
    ids=lambda p: p.stem,
)
def test_only_the_settings_read_the_keys_of_a_runs_config(source):
    is_reader = source.stem == "settings"
    assert is_reader == bool(list(read_keys(source)))


@each_place
def test_files_are_short_and_functions_have_names(source):
    text = source.read_text()
    assert len(text.splitlines()) <= 330
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign):
            assert not isinstance(node.value, ast.Lambda), node.lineno
