"""Processes and devices: many hosts, a device for each core, the compilation cache."""

import contextlib
import logging
import math
import os
import socket
import sys
import threading
from importlib.util import find_spec

from experiments.system.errors import InputError


def start_processes(coordinator, num_processes, process_id, seconds=300):
    """Joins the other processes of a run on many hosts.

    Args:
        coordinator: None for a run of one process; "auto" where JAX detects the
            cluster (Slurm, Open MPI, Kubernetes, TPU); or host:port of process 0.
        num_processes: how many there are, with host:port.
        process_id: which one this is, from 0, with host:port.
        seconds: the process ends with status 2 where the others did not start in them.
    """
    import jax

    _check_processes(coordinator, num_processes, process_id)
    if coordinator is None:
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM
    given = () if coordinator == "auto" else (coordinator, num_processes, process_id)
    missing = (
        f"--coordinator={coordinator}: the processes did not all start within "
        f"--start_seconds={seconds}: start each with another --process_id, and see "
        "that process 0 can be reached at this address"
    )
    with _time_limit(seconds, missing):
        try:
            jax.distributed.initialize(*given, initialization_timeout=seconds + 60)
        except Exception as error:  # detection may raise anything
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"--coordinator={coordinator}: JAX cannot start ({reason}): give the "
                "address of process 0 and a free port there"
            ) from error
    if not is_first():
        logging.getLogger("experiments").setLevel(logging.WARNING)


def is_first():
    """Whether this is the process that writes files and prints."""
    import jax

    return jax.process_index() == 0


def use_cores(is_filled):
    """On a machine without an accelerator, makes each core a device.

    Matrix products as small as those of one chain an image run no faster on two cores
    than on one; on two devices, each on its core, they do. It must come before JAX's
    first computation. Devices asked for by XLA_FLAGS are left as they are. It
    also lets devices wait for each other without end: XLA by itself aborts a process
    that was suspended for a minute.

    Args:
        is_filled: number of cores -> whether the work will keep as many devices busy.
    """
    import jax

    plugins = ("jax_plugins", "libtpu")
    is_cpu = jax.config.jax_platforms == "cpu" or not any(map(find_spec, plugins))
    flags = os.environ.get("XLA_FLAGS", "")
    if "host_platform_device_count" in flags or not is_cpu:
        return
    cores = num_cores()
    jax.config.update("jax_num_cpu_devices", cores)
    patience = "--xla_cpu_collective_call_terminate_timeout_seconds"
    if patience not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {patience}=1000000".strip()
    if is_filled(cores):
        os.environ.setdefault("NPROC", "1")  # one thread for each operation of XLA


def num_cores():
    """The cores that this process may use; all where the system cannot tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory():
    """Bytes of memory of a device, or infinity where the system cannot tell."""
    import jax

    limits = jax.local_devices()[0].memory_stats() or {}  # a CPU gives None
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        pages = math.inf
    return limits.get("bytes_limit", pages)


def require_device():
    """Makes JAX look for its devices; it must come after `use_cores`."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        if jax.distributed.is_initialized():
            raise
        reason = (str(error) or "it finds none here").splitlines()[0]
        raise InputError(
            f"JAX_PLATFORMS={jax.config.jax_platforms or ''}: JAX cannot use such "
            f"devices ({reason}): set JAX_PLATFORMS=cpu, or see JAX's installation"
        ) from error


def use_compile_cache(folder):
    """Points JAX's persistent compilation cache at a folder; empty for none.

    There is none either where ~ is a home that does not exist, as in some containers.
    """
    import jax

    folder = os.path.expanduser(folder)
    if folder and not folder.startswith("~"):
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def is_lost_peer(error):
    """Whether an error says that another process of this run is gone."""
    import jax

    is_gloo = isinstance(error, ValueError) and "gloo" in str(error).lower()
    is_runtime = is_gloo or isinstance(error, jax.errors.JaxRuntimeError)
    return is_runtime and jax.distributed.is_initialized()


def leave_soon(status, seconds=5.0):
    """Bounds the exit of a process that fails alone, which waits for the others."""
    import jax

    if jax.distributed.is_initialized():
        _after(seconds, lambda: os._exit(status))


def _after(seconds, function):
    """Starts a timer, which no exit waits for, and returns it."""
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer


def print_error(line):
    """Prints the one line of an error."""
    print("Error:", line, file=sys.stderr, flush=True)


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
    if not _is_address(coordinator):
        raise InputError(
            f"--coordinator={coordinator}: give host:port of process 0, a host that is "
            "known here and a port from 1 to 65535"
        )


def _is_address(coordinator):
    """Whether it is host:port, of a host that is known here."""
    host, _, port = coordinator.rpartition(":")
    if host and port.isdecimal() and 0 < int(port) < 2**16:
        with contextlib.suppress(OSError):
            return bool(socket.getaddrinfo(host.strip("[]"), int(port)))
    return False


@contextlib.contextmanager
def _time_limit(seconds, message):
    """Ends the process, which JAX holds, with one line; JAX itself would abort it."""

    def give_up():
        print_error(message)
        os._exit(2)

    timer = _after(seconds, give_up)
    try:
        yield
    finally:
        timer.cancel()
