"""The documents' code runs as printed, and their links lead somewhere."""

import json
import math
import re
import subprocess
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
COMPARE = ROOT / "docs" / "compare.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)")
README, *_ = CODE.findall(PAGES[0].read_text())  # its test is below
EXAMPLES = {
    code: (page.name, i)
    for page in reversed(PAGES)
    for i, code in enumerate(CODE.findall(page.read_text()))
    if code != README and "import bridgestan" not in code  # its test is below too
}
SEARCHES = "estimate_log_z(", "log_z_from_draws("  # README's is in every run


def is_slow(code, i):
    """All but the first of a page, and what compiles a search for log Z."""
    return i > 0 or any(name in code for name in SEARCHES)


CASES = [
    pytest.param(code, id=f"{name}-{i}", marks=[pytest.mark.slow] * is_slow(code, i))
    for code, (name, i) in EXAMPLES.items()
]


@pytest.mark.parametrize("code", CASES)
def test_examples_run_as_printed(code, capsys):
    for name, extra in (
        ("blackjax", "bench"),
        ("equinox", "test"),
        ("pymc", "test"),
        ("torch", "bench"),
    ):
        if f"import {name}" in code and find_spec(name) is None:
            pytest.skip(f"the extra {extra} is not installed")
    if "import pymc" in code:  # which switches JAX to 64 bits
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
        return
    exec(compile(code, "example", "exec"), {})
    assert "nan" not in capsys.readouterr().out


def test_the_readme_gets_log_z_with_an_error_in_under_ten_lines(capsys):
    lines = [line for line in README.splitlines() if line.strip()]
    assert len(lines) - sum(line.startswith(("import", "from")) for line in lines) < 10
    names = {}
    exec(compile(README, "README.md", "exec"), names)
    result = names["result"]
    exact = 5 * math.log(2.0 * 0.4210244382)  # 2 K_0(1), a Bessel function
    assert result.standard_error < 0.05
    assert abs(result.log_z - exact) < 4.0 * result.standard_error
    printed, error = numbers(capsys.readouterr().out)
    stated, stated_error = numbers((ROOT / "README.md").read_text())
    assert printed == pytest.approx(float(result.log_z), abs=6e-4)
    assert stated == pytest.approx(printed, abs=2.0 * error)  # rounding moves chains
    assert stated_error == pytest.approx(error, rel=0.3)


class StanModel:
    """In place of BridgeStan's: y ~ normal(0, 1), and sigma ~ gamma(3, 1)."""

    def __init__(self, program, data):
        assert (program, data) == ("model.stan", "data.json")

    def log_density_gradient(self, theta_unc, propto=True):
        """Of unbounded y and log sigma."""
        assert not propto and theta_unc.dtype == float
        y, x = theta_unc
        value = -0.5 * y * y - 0.5 * math.log(2.0 * math.pi)
        value += 3.0 * x - math.exp(x) - math.log(2.0)
        return value, np.array([-y, 3.0 - math.exp(x)])

    def param_unconstrain(self, theta):
        """Unbounded y and log sigma."""
        return np.array([theta[0], math.log(theta[1])])


@pytest.mark.slow
def test_the_example_of_stan(tmp_path, monkeypatch, capsys):
    (code,) = (c for c in CODE.findall(COMPARE.read_text()) if "bridgestan" in c)
    module = types.SimpleNamespace(StanModel=StanModel)
    monkeypatch.setitem(sys.modules, "bridgestan", module)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    shape = (4, 500)
    draws = np.stack([rng.normal(size=shape), rng.gamma(3.0, size=shape)], -1)
    np.save("draws.npy", draws)
    exec(compile(code, "example", "exec"), {})
    log_z, error = numbers(capsys.readouterr().out)
    assert abs(log_z) < 4.0 * error < 0.2


def numbers(text):
    """Log Z and its error of the first line that prints them."""
    return map(float, re.search(r"log Z = (-?\d+\.\d+) \+- (\d+\.\d+)", text).groups())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_documents_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.ipynb")))
def test_notebooks_run_as_they_stand(path, capsys):
    names = {}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), path.name, "exec"), names)
    assert "nan" not in capsys.readouterr().out
