"""What is installed works elsewhere, and the library without its extras."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import ais_jax

ROOT = Path(__file__).parents[1]
EXAMPLE = re.search(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
)[1]
NOT_REQUIRED = """
    PIL array_record importlib_resources matplotlib ml_collections pandas pooch sklearn
    tabulate tensorboardX tensorflow_datasets beartype blackjax numpyro
    benchmarks configs experiments
"""  # what the library's requirements do not bring, and the checkout's other folders
HIDDEN = NOT_REQUIRED.split()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
HIDE = f"""
import sys

class Hidden:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {HIDDEN}:
            raise ModuleNotFoundError(f"{{name}} is hidden", name=name)

sys.meta_path.insert(0, Hidden)
"""


def run_hidden(code, folder):
    """Runs code in a process that cannot import `HIDDEN`."""
    return subprocess.run(
        [sys.executable, "-c", HIDE + code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_the_readmes_log_z_needs_the_library_alone(tmp_path):
    done = run_hidden(EXAMPLE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"log Z = -0\.8\d\d \+- 0\.0\d\d\n", done.stdout)


def test_every_module_of_the_library_imports_by_itself(tmp_path):
    files = sorted((ROOT / "ais_jax").rglob("*.py"))
    places = [path.relative_to(ROOT).with_suffix("").parts for path in files]
    of_numpyro = {"complements", "gamma_laws", "numpyro_runs", "priors"}
    names = [".".join(p) for p in places if p[-1] not in {"__init__", *of_numpyro}]
    code = "".join(f"import {name}\n" for name in names)
    done = run_hidden(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_what_is_hidden_cannot_be_imported(tmp_path):
    code = "".join(
        f"try:\n    import {name}\nexcept ModuleNotFoundError as error:\n"
        f"    print(error.name)\n"
        for name in HIDDEN
    )
    assert run_hidden(code, tmp_path).stdout.split() == HIDDEN


def test_log_z_needs_neither_flax_nor_optax(tmp_path):
    code = """
import sys
from ais_jax import estimate_log_z, from_numpyro
print(sorted({"flax", "optax", "numpyro"} & sys.modules.keys()))
"""
    assert run_hidden(code, tmp_path).stdout == "[]\n"


def test_programs_and_configs_are_installed_and_start_from_any_folder(tmp_path):
    """From a copy of the packages that are installed; a bad setting of a config."""
    built, elsewhere = tmp_path / "built", tmp_path / "elsewhere"
    elsewhere.mkdir()
    chosen = PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    for file in ROOT.glob("*/**/*.py"):
        place = file.relative_to(ROOT)
        if any(fnmatch(".".join(place.parts[:-1]), pattern) for pattern in chosen):
            (built / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, built / place)
    environment = {**os.environ, "PYTHONPATH": str(built)}
    program = ["-m", "experiments.main", "--config=configs/digits.py"]
    for arguments, said in (
        (["-c", "from experiments import load_run; load_run('r')"], "holds no run"),
        ([*program, "--config.num_epochs=0"], "num_epochs=0"),
    ):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert said in done.stderr.splitlines()[-1]


def test_extras_ask_for_extras_that_there_are():
    extras = PROJECT["optional-dependencies"]
    wanted = [re.fullmatch(r"ais_jax\[(.+)\]", r) for rs in extras.values() for r in rs]
    names = {name for match in wanted if match for name in match[1].split(",")}
    assert names and names <= extras.keys()


def test_the_citation_names_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {ais_jax.__version__}\n" in citation
