"""Programs as forks of one process, which has imported what they would import."""

import atexit
import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[2]
SERVER = """
import json, os, runpy, sys, traceback
import experiments.run.launch
for line in sys.stdin:
    arguments, *outputs = json.loads(line)
    if (child := os.fork()) == 0:
        status, sys.argv = 1, arguments
        try:
            for number, name in enumerate(outputs, 1):
                os.dup2(os.open(name, os.O_WRONLY), number)
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
            status = 0
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@functools.cache
def server():
    """The process that forks: a line of arguments in, an exit status out."""
    command = [sys.executable, "-c", SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
    atexit.register(process.communicate)
    return process


def run(program, *arguments):
    """The exit status of `python -m program arguments`, and what it printed."""
    process = server()
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        line = json.dumps([[program, *map(str, arguments)], out.name, err.name])
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        printed = out.read().decode(), err.read().decode()
    return SimpleNamespace(returncode=status, stdout=printed[0], stderr=printed[1])
