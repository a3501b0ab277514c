"""The precision of HMC's force where it is left to the device: a rule, not a timing.

A coarse force gets the density's values apart, at the model's precision: once a move,
or at every point where a trajectory's points are weighed, which costs what it gains.
"""

import re
from pathlib import Path

import jax
import numpy as np

from ais_jax import sharding
from experiments.run import folder
from experiments.run.build import AUTO
from experiments.run.settings import resolve, with_forces
from experiments.system.progress import log

CPU_INFO = Path("/proc/cpuinfo")  # Linux's; elsewhere a CPU computes in float32
CPU_UNITS = {"amx_bf16", "avx512_bf16"}  # on which XLA multiplies bfloat16
FIRST_TF32 = 8.0  # compute capability
_NAMES = ("float32", "tf32", "bf16")


def settle(settings, workdir):
    """The settings with values where the precision of a force is "auto".

    The run that the folder holds keeps its own, also on another device.
    """
    asked = settings.model["force_precision"], settings.evaluation.force_precision
    if AUTO not in asked:
        return settings
    if workdir is not None and (Path(workdir) / "config.json").exists():
        saved = resolve(folder.saved_config(workdir))
        found = saved.model["force_precision"], saved.evaluation.force_precision
    else:
        coarse = of_device(jax.local_devices()[0])
        coarse = _NAMES[int(sharding.from_first(np.array(_NAMES.index(coarse))))]
        found = by_rule(settings, coarse)
    found = [f if a == AUTO else a for a, f in zip(asked, found)]
    return with_forces(settings, *found)


def say(asked, settled):
    """Says what was settled, once nothing refuses the run: an error stands alone."""
    if settled is not asked:
        log.info(
            "HMC's force: %s in training, %s in evaluation.",
            settled.model["force_precision"],
            settled.evaluation.force_precision,
        )


def by_rule(settings, coarse):
    """The force's precision in training and evaluation, where the device has a coarse.

    It is the model's own where the density's values are needed at every step, and of a
    user's model, whose force is its own.
    """
    own, estimator = settings.model["precision"], settings.estimator
    if settings.factory or own != "float32":
        return own, own
    is_everywhere = estimator.get("average") == "points"
    is_rare = estimator.get("num_leapfrog", 1) > 1 and not is_everywhere
    return (
        coarse if is_rare else own,
        coarse if settings.evaluation.preset == "paper" else own,
    )


def of_device(device):
    """The coarsest precision that a device multiplies faster than float32."""
    if device.platform == "gpu":
        capability = str(getattr(device, "compute_capability", ""))
        is_nvidia = re.fullmatch(r"\d+\.\d+", capability)
        return "tf32" if is_nvidia and float(capability) >= FIRST_TF32 else "float32"
    return "bf16" if device.platform == "cpu" and CPU_UNITS & _flags() else "float32"


def _flags():
    """The CPU's flags; none where they cannot be read."""
    try:
        line = re.search(r"^flags\s*:(.*)$", CPU_INFO.read_text(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return set()
    return set(line[1].split()) if line else set()
