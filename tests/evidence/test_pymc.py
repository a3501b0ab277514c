"""`from_pymc`, in a process of its own, since PyTensor switches JAX to 64 bits."""

import subprocess
import sys
from importlib.util import find_spec

import pytest


@pytest.mark.parametrize("which", ["short", pytest.param("", marks=pytest.mark.slow)])
def test_models_of_pymc_against_closed_forms(which):
    if find_spec("pymc") is None:
        pytest.skip("PyMC is not installed")
    command = [sys.executable, "-m", "tests.evidence.pymc_models", which]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
