"""What the command-line programs share: flags, log lines, errors of one line."""

import logging
import os
import re
import sys
import threading
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from experiments.system import devices, files
from experiments.system.errors import Ended, InputError, Stopped

_DISK_FULL = "the disk is full. Free some space: the same command goes on from there."
CONFIGS = Path(__file__).parents[2] / "configs"


def run(main, takes_names=False):
    """Parses the flags and runs a program; bad input is one line and exit status 2.

    Args:
        main: function of no arguments, which may raise `InputError` or `Ended`.
        takes_names: whether main takes what is left on the command line, as a list.
    """
    sys.stdout.reconfigure(line_buffering=True)  # a signal loses no line

    def start(argv):
        names = argv[1:]
        if takes_names:
            _guarded(lambda: main(names))
        elif names:
            _fail(f"{names[0]!r} is no flag: did you mean --config={names[0]}?", 2)
        else:
            _guarded(main)

    app.run(start, flags_parser=_parse)


def define_config(default):
    """Defines --config, with the name of a file in configs/ as its default.

    Returns the flag's holder, for `load_config`.
    """
    if not any(arg.lstrip("-").split("=")[0] == "config" for arg in sys.argv):
        sys.argv.insert(1, f"--config={CONFIGS / default}")
    return config_flags.DEFINE_config_file(
        "config", None, "Config file; after a colon, its argument."
    )


def define_compile_cache():
    """Defines --compile_cache."""
    flags.DEFINE_string(
        "compile_cache",
        "~/.cache/ais_jax/xla",
        "Folder of JAX's persistent compilation cache; empty for none.",
    )


def load_config(flag):
    """The ConfigDict of a flag that `define_config` defined.

    Raises:
        InputError: where the file could not be read.
    """
    try:
        _ = flag.value.keys
    except OSError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"--config cannot be read: {reason}") from error
    return flag.value


def overrides():
    """Dotted names and values of the settings given on the command line."""
    return config_flags.get_override_values(flags.FLAGS["config"])


def _guarded(main):
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax's errors come to us
    logging.getLogger("experiments").setLevel(logging.INFO)
    threading.excepthook = _end_where_the_disk_is_full
    try:
        main()
    except InputError as error:
        _fail(error, 2)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        devices.leave_soon(stop.status)
        sys.exit(stop.status)
    except Ended as end:
        _fail(end, end.status)
    except Exception as error:
        if files.is_disk_full(error):
            _fail(_DISK_FULL, 1)
        if not devices.is_lost_peer(error):
            devices.leave_soon(1)
            raise
        devices.print_error(
            "another process of this run stopped answering "
            f"({str(error).splitlines()[0][:200]}). Start all of them again with the "
            "same command: training goes on from the newest checkpoint."
        )
        os._exit(4)  # an orderly exit would wait for the lost process


def _end_where_the_disk_is_full(failure):
    """What a thread raises, TensorBoard's for one, which the others would wait for."""
    if files.is_disk_full(failure.exc_value):
        devices.print_error(_DISK_FULL)
        os._exit(1)
    threading.__excepthook__(failure)


def _parse(argv):
    """Parses the flags; what a config file raises ends in one line too."""
    try:
        return flags.FLAGS(argv)
    except AttributeError as error:
        reason = str(error).replace("\\n", " ").replace("\\'", "").strip("'\"")
        return _fail(f"unknown config setting {reason}", 2)
    except (flags.Error, LookupError, TypeError, ValueError, OSError) as error:
        return _fail(error, 2)


def _fail(message, status):
    lines = [line.strip() for line in str(message).splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):  # of a config file
        lines = [re.sub(r"^[\w.]+: ", "", lines[-1])]
    devices.print_error(" ".join(lines))
    if "jax" in sys.modules:
        devices.leave_soon(status)
    sys.exit(status)
