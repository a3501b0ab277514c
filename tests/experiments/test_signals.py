"""Signals end a program in order, wherever it is, and a second one at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.system.errors import Stopped
from experiments.system.signals import StopSignals

ROOT = Path(__file__).parents[2]
LINE = "Stopped. What was finished is kept; the same command goes on from there.\n"
PLACES = {
    "imports": "import jax, flax, optax, orbax.checkpoint, matplotlib.pyplot",
    "sleep": "import time; time.sleep(60)",
    "one call into C": "compute()",
    "collecting garbage": "import gc; gc.callbacks.append(spin); gc.collect()",
    "swallowing": """
while True:
    try:
        spin()
    except BaseException:
        pass
""",
}
PROGRAM = """
import hashlib, sys
from experiments.system import signals
signals.watch()
def compute():  # hours, without a look at signals
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
def spin(*_):
    while True:
        pass
print("ready", flush=True)
"""


def started(program):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", PLACES)
def test_a_signal_ends_a_program_in_one_line_wherever_it_is(place, number):
    process = started(PLACES[place])
    process.send_signal(number)
    assert process.communicate(timeout=30)[1] == LINE
    assert process.returncode == 3


HELD = """
with signals.StopSignals() as stop:
    print("holding", flush=True)
    while not stop.requested:
        pass
    print("held", flush=True)
    compute()
"""


def test_what_is_held_back_ends_by_the_second_signal():
    process = started(HELD)
    assert process.stdout.readline() == "holding\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == LINE
    assert process.returncode == 3


def test_without_a_program_the_handlers_come_back():
    old = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Stopped), StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
    assert old == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]


def test_a_program_that_just_starts_ends_in_one_line(tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "experiments.main"]
    command.append(f"--workdir={tmp_path / 'run'}")
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if line.rstrip().endswith("experiments"):  # the package is imported
                break
        process.send_signal(signal.SIGINT)
        rest = [line for line in process.stderr if not line.startswith("import time:")]
    assert rest == [LINE] and process.returncode == 3
    assert not (tmp_path / "run").exists()


READ = """
from experiments.system import command_line
print("ready", flush=True)
input()
command_line.run(lambda names: print("results"))
"""


def test_a_reader_that_leaves_the_output_is_no_failure_of_the_program():
    with subprocess.Popen(
        [sys.executable, "-c", READ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.stdout.close()
        _, errors = process.communicate("\n", timeout=60)
    assert (errors, process.returncode) == ("", 1)
