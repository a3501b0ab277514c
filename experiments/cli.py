"""What the command-line programs share: flags, log lines, errors of one line."""

import contextlib
import logging
import math
import os
import re
import socket
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags


class InputError(ValueError):
    """Bad input; the message names the setting, its value and the mend."""


class Ended(Exception):
    """The program ends before its work is done.

    Args:
        message: for the user.
        status: exit status of the process.
    """

    def __init__(self, message, status):
        super().__init__(message)
        self.status = status


def run(main, takes_names=False):
    """Parses the flags and runs a program; bad input is one line and exit status 2.

    Args:
        main: function of no arguments, which may raise `InputError` or `Ended`.
        takes_names: whether main takes what is left on the command line, as a list.
    """

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
    """Defines --config; its default is read, like any other, inside `run`.

    Args:
        default: file name of the default config in configs/.

    Returns:
        The flag's holder, for `load_config`.
    """
    if not any(arg.lstrip("-").split("=")[0] == "config" for arg in sys.argv):
        path = Path(__file__).parents[1] / "configs" / default
        sys.argv.insert(1, f"--config={path}")
    return config_flags.DEFINE_config_file(
        "config", None, "Config file; after a colon, its argument."
    )


def load_config(flag):
    """The config of a flag that `define_config` defined.

    Args:
        flag: the flag's holder.

    Returns:
        A ConfigDict.

    Raises:
        InputError: where the file could not be read.
    """
    try:
        _ = flag.value.keys
    except OSError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"--config cannot be read: {reason}") from error
    return flag.value


def start_processes(coordinator, num_processes, process_id, seconds=300):
    """Joins the other processes of a run on many hosts.

    Args:
        coordinator: None for a run of one process; "auto" where JAX detects the
            cluster (Slurm, Open MPI, Kubernetes, TPU); or host:port of process 0.
        num_processes: how many there are, with host:port.
        process_id: which one this is, from 0, with host:port.
        seconds: the process ends with status 2 where the others did not start in them.

    Raises:
        InputError: where the flags are wrong, or JAX cannot start with them.
    """
    import jax

    _check_processes(coordinator, num_processes, process_id)
    if coordinator is None:
        return
    given = () if coordinator == "auto" else (coordinator, num_processes, process_id)
    missing = (
        f"--coordinator={coordinator}: the processes did not all start within "
        f"--start_seconds={seconds}: start each with its own --process_id, and see "
        "that process 0 can be reached at this address"
    )
    with _time_limit(seconds, missing):
        try:
            jax.distributed.initialize(*given, initialization_timeout=seconds + 60)
        except Exception as error:  # of any cluster's detection
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"--coordinator={coordinator}: JAX cannot start ({reason}): give the "
                "address of process 0 and a free port there"
            ) from error
        is_first = jax.process_index() == 0
    if not is_first:
        logging.getLogger("experiments").setLevel(logging.WARNING)


def _check_processes(coordinator, num_processes, process_id):
    """Refuses flags with which JAX would wait for minutes, or abort."""
    counts = (num_processes, process_id)
    if coordinator in (None, "auto"):
        if counts != (None, None):
            raise InputError(
                "--num_processes and --process_id are for --coordinator=host:port"
            )
        return
    if None in counts:
        raise InputError(
            f"--coordinator={coordinator} needs --num_processes and --process_id"
        )
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"--process_id={process_id}: use 0 to {num_processes - 1}, a different one "
            f"in each of --num_processes={num_processes}"
        )
    host, _, port = coordinator.rpartition(":")
    known = False
    if host and port.isdecimal() and 0 < int(port) < 2**16:
        with contextlib.suppress(OSError):
            known = bool(socket.getaddrinfo(host.strip("[]"), int(port)))
    if not known:
        raise InputError(
            f"--coordinator={coordinator}: give host:port of process 0, a host that is "
            "known here and a port from 1 to 65535"
        )


@contextlib.contextmanager
def _time_limit(seconds, message):
    """Ends the process, which JAX holds, with one line; JAX itself would abort it."""

    def give_up():
        _print_error(message)
        os._exit(2)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def use_cores(configs):
    """On a machine without an accelerator, makes each core a device of its own.

    Matrix products as small as those of one chain an image run no faster on two cores
    than on one; on two devices, each on its core, they do. It must come before JAX's
    first computation. Devices asked for by XLA_FLAGS are left as they are. It
    also lets devices wait for each other without end: XLA by itself aborts a process
    that was suspended for a minute.

    Args:
        configs: the ConfigDicts that this process runs.
    """
    import jax

    from experiments import builders

    plugins = ("jax_plugins", "libtpu")
    is_cpu = jax.config.jax_platforms == "cpu" or not any(map(find_spec, plugins))
    is_chosen = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if is_chosen or not is_cpu:
        return
    cores = len(os.sched_getaffinity(0))
    jax.config.update("jax_num_cpu_devices", cores)
    patience = "--xla_cpu_collective_call_terminate_timeout_seconds"
    flags = os.environ.get("XLA_FLAGS", "")
    if patience not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {patience}=1000000".strip()
    if all(math.prod(builders.mesh_shape(c, cores)) == cores for c in configs):
        os.environ.setdefault("NPROC", "1")  # XLA's threads for each operation


def use_compile_cache(folder):
    """Points JAX's persistent compilation cache at a folder; empty for none."""
    import jax

    if folder:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _guarded(main):
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("experiments").setLevel(logging.INFO)
    try:
        main()
    except InputError as error:
        _fail(error, 2)
    except Ended as end:
        _fail(end, end.status)
    except Exception as error:
        if not _is_lost_peer(error):
            _leave_soon(1)
            raise
        _print_error(
            "another process of this run stopped answering "
            f"({str(error).splitlines()[0][:200]}). Start all of them again with the "
            "same command: training goes on from the newest checkpoint."
        )
        os._exit(4)  # an orderly exit would wait for the lost process


def _is_lost_peer(error):
    import jax

    is_shared = jax.distributed.is_initialized()
    return is_shared and isinstance(error, jax.errors.JaxRuntimeError)


def _leave_soon(status, seconds=5.0):
    """Bounds the exit of a process that fails alone, which waits for the others."""
    import jax

    if jax.distributed.is_initialized():
        timer = threading.Timer(seconds, os._exit, [status])
        timer.daemon = True
        timer.start()


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
    _print_error(" ".join(lines))
    if "jax" in sys.modules:
        _leave_soon(status)
    sys.exit(status)


def _print_error(line):
    print("Error:", line, file=sys.stderr, flush=True)
