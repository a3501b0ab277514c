"""The gallery's notebooks run, and print what they show."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "docs" / "gallery").glob("*.py"))
SHOWN = re.compile(r"^# ```text\n(.*?)^# ```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?")


def masked(text):
    """The lines of a text, with their numbers masked and their spaces made one."""
    lines = (re.sub(r"\s+", " ", NUMBER.sub("#", line)) for line in text.splitlines())
    return [line.strip() for line in lines if line.strip()]


def shown(script):
    """What a script shows as its output."""
    parts = SHOWN.findall(script.read_text())
    return "".join(re.sub(r"^# ?", "", part, flags=re.MULTILINE) for part in parts)


@pytest.fixture(scope="module")
def outputs():
    """Script -> what it printed, each run once."""
    return {}


def run(script, outputs):
    if script not in outputs:
        done = subprocess.run(
            [sys.executable, script],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        outputs[script] = done.stdout
    return outputs[script]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_it_prints_what_it_shows(script, outputs):
    """Line by line but for the numbers, and the lines of the programs in between."""
    printed = iter(masked(run(script, outputs)))
    for line in masked(shown(script)):
        assert line in printed, line
