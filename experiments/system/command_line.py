"""What the command-line programs share: flags, log lines, errors of one line."""

import io
import logging
import os
import re
import sys
import threading
import warnings
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from experiments.system import devices, files
from experiments.system.errors import Ended, InputError, Stopped
from experiments.system.progress import Lines, end_of_line

_ENDING = threading.Lock()  # who ends at a full disk keeps it
_DISK_FULL = "the disk is full. Free some space: the same command goes on from there."
_is_given = False  # whether the command line has --config
CONFIGS = Path(__file__).parents[2] / "configs"


def run(main, config=None):
    """Parses the flags and runs a program; bad input is one line and exit status 2.

    Args:
        main: a function that may raise `InputError` or `Ended`. Where there is no
            config it takes what is left on the command line, as a list.
        config: the name of a file in configs/, the default of --config.
    """
    _open_streams()
    if config:
        _define_config(config)

    def start(argv):
        names = argv[1:]
        if config and names:
            _fail(f"{names[0]!r} is no flag: did you mean --config={names[0]}?", 2)
        _guarded(main if config else lambda: main(names))

    app.run(start, flags_parser=_parse)


def _open_streams():
    """Gives a program without streams some, and loses no line at a signal.

    A closed stream is None, as both are without a console; a notebook has its own.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def _define_config(default):
    """Defines --config and --compile_cache."""
    global _is_given
    _is_given = any(re.match(r"--?config(=|$)", arg) for arg in sys.argv)
    if not _is_given:
        sys.argv.insert(1, f"--config={CONFIGS / default}")
    config_flags.DEFINE_config_file(
        "config", None, f"Config file; after a colon, its argument. Default: {default}."
    )
    flags.DEFINE_string(
        "compile_cache",
        "~/.cache/ais_jax/xla",
        "Folder of JAX's persistent compilation cache; empty for none.",
    )
    for name in ("config", "compile_cache"):  # --help lists them then
        flag = flags.FLAGS[name]
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def is_config_given():
    """Whether the command line names a config file, and not only its settings."""
    return _is_given


def load_config():
    """The ConfigDict of --config, with the settings of the command line."""
    try:
        _ = flags.FLAGS.config.keys
    except OSError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"--config cannot be read: {reason}") from error
    folder = Path(flags.FLAGS["config"].config_filename).absolute().parent
    sys.path.append(str(folder))  # of modules that the config may name
    return flags.FLAGS.config


def overrides():
    """Dotted names and values of the settings given on the command line."""
    return config_flags.get_override_values(flags.FLAGS["config"])


def _guarded(main):
    logging.basicConfig(level=logging.WARNING, force=True)
    logging.root.handlers[0].setFormatter(Lines())
    for name in ("absl", "asyncio"):  # orbax raises what it logs here
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("experiments").setLevel(logging.INFO)
    warnings.formatwarning = _warning_line
    threading.excepthook = _end_where_the_disk_is_full
    try:
        if "compile_cache" in flags.FLAGS:
            devices.use_compile_cache(flags.FLAGS.compile_cache)
        main()
    except InputError as error:
        _fail(error, 2)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        devices.leave_soon(stop.status)
        sys.exit(stop.status)
    except Ended as end:
        _fail(end, end.status)
    except BrokenPipeError:  # who read the output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if files.is_disk_full(error):
            _end_at_full_disk()
        if not devices.is_lost_peer(error):
            devices.leave_soon(1)
            raise
        devices.print_error(
            "another process of this run stopped answering "
            f"({str(error).splitlines()[0][:200]}). Start all of them again with the "
            "same command: training goes on from the newest checkpoint."
        )
        os._exit(4)  # an orderly exit would wait for the lost process


def _warning_line(message, *_, **__):
    return f"Warning: {message}\n"


def _end_where_the_disk_is_full(failure):
    """What a thread raises, TensorBoard's for one, which the others would wait for."""
    if files.is_disk_full(failure.exc_value):
        _end_at_full_disk()
    threading.__excepthook__(failure)


def _end_at_full_disk():
    """Ends at once: in an orderly exit TensorBoard would write again, and fail.

    Threads meet a full disk together: the first speaks, and ends the others.
    """
    _ENDING.acquire()
    print(end_of_line(), end="", file=sys.stderr)
    devices.print_error(_DISK_FULL)
    os._exit(Ended.status)


def _parse(argv):
    """Parses the flags; what a config file raises ends in one line too."""
    try:
        return flags.FLAGS([_in_place(argument) for argument in argv])
    except SystemExit:
        sys.exit(0)  # --help has been printed
    except (AttributeError, KeyError) as error:
        reason = str(error).replace("\\n", " ").replace("\\'", "").strip("'\"")
        hint = ": write --config.optimizer.settings=\"{'NAME': VALUE}\""
        is_within = any(".settings." in argument for argument in argv)
        return _fail(f"unknown config setting {reason}{hint if is_within else ''}", 2)
    except (flags.Error, LookupError, TypeError, ValueError, OSError) as error:
        return _fail(error, 2)
    except Exception as error:
        return _fail(f"--config: {type(error).__name__}: {error}", 2)


def _in_place(argument):
    """A flag whose file is found: ~ in its home, a config where it is installed.

    A shell does not fill in a home folder after the =. Settings of a config are paths
    for those who read them.
    """
    name, equals, value = argument.partition("=")
    if re.fullmatch("--?config", name):
        path = Path(value.partition(":")[0])
        if path.parent == Path("configs") and not path.exists():
            value = CONFIGS.parent / value
    if re.match(r"-(?!-?config\.)", name) and str(value).startswith("~"):
        value = files.user_path(value)
    return f"{name}{equals}{value}"


def _fail(message, status):
    lines = [line.strip() for line in str(message).splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):  # a config file raised it
        lines = [re.sub(r"^[\w.]+: ", "", lines[-1])]
    devices.print_error(" ".join(lines))
    if "jax" in sys.modules:
        devices.leave_soon(status)
    sys.exit(status)
