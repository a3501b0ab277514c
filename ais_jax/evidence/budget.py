"""What a search for log Z spends and may spend, and its pilot."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from ais_jax.annealing.loop import Chains
from ais_jax.checks import check_count
from ais_jax.evidence import pilot as pilots
from ais_jax.evidence.base import BaseFit, fit_clouds
from ais_jax.evidence.pilot import Pilot, PilotMemory
from ais_jax.evidence.sampler import (
    NEAR_PILOT,
    PILOT,
    SEGMENT,
    Programs,
    Steering,
    end_pass,
    frozen_moves,
)
from ais_jax.types import PRNGKey

FEWEST_TEMPERATURES = 64
PER_LENGTH = 2.0  # temperatures for each unit of the path's squared length
PER_PILOT = 1.9  # and for each move of the pilot, which then makes 15% of all moves
LONG = 4.0  # a path length from which a base is fitted
SHORTER = 0.7  # times as long the path from a fitted base must be
NUM_ROUNDS = 2  # of the pilot after its first pass
MOST_ROUNDS = 6


class Progress(NamedTuple):
    """Where a search stands; `str` is one line.

    Attributes:
        stage: 'pilot' or 'chains at T = ...'; it says where the base is a fitted one.
        num_moves: made so far, by all chains.
        expected_moves: of the whole search, as far as can be told.
        seconds: since it began.
        log_z: so far, nats, or NaN.
        standard_error: so far, nats, or NaN.
    """

    stage: str
    num_moves: int
    expected_moves: int
    seconds: float
    log_z: float = math.nan
    standard_error: float = math.nan

    def __str__(self) -> str:
        """The line."""
        share = self.num_moves / max(self.expected_moves, 1)
        left = self.seconds * (1.0 / max(share, 1e-9) - 1.0)
        text = f"{self.stage}: {share:.0%} done, about {left:.0f} s left"
        if math.isnan(self.log_z):
            return text
        return f"{text}: log Z = {self.log_z:.3f} +- {self.standard_error:.2g}"


class Limits(NamedTuple):
    """When a search ends.

    Attributes:
        error: the standard error wanted, nats, or None for one run of K chains.
        num_temperatures: T to begin with, or None where the pilot chooses it.
        max_moves: of all chains together.
        max_seconds: of the whole search.
    """

    error: float | None
    num_temperatures: int | None
    max_moves: int
    max_seconds: float


def check_limits(limits: Limits, num_chains: int) -> Limits:
    """Checks the `Limits` of runs of K chains and returns them.

    Raises:
        ValueError: naming the one that cannot be kept.
    """
    if limits.error is not None and not 0.0 < limits.error < float("inf"):
        raise ValueError(f"error={limits.error}: use a positive number of nats")
    check_count("max_moves", limits.max_moves)
    num = limits.num_temperatures or FEWEST_TEMPERATURES
    if limits.max_moves < num_chains * (num - 1):
        raise ValueError(
            f"max_moves={limits.max_moves} is less than num_chains={num_chains} make "
            f"at {num} temperatures: raise it"
        )
    if not limits.max_seconds > 0.0:
        raise ValueError(f"max_seconds={limits.max_seconds}: use a positive number")
    return limits


def check_mesh(mesh: Mesh | None, num_chains: int) -> None:
    """Refuses a mesh over whose devices K chains cannot be spread evenly.

    Raises:
        ValueError: with both numbers.
    """
    if mesh is not None and not isinstance(mesh, Mesh):
        raise ValueError(f"mesh={mesh}: give a jax.sharding.Mesh, as of jax.make_mesh")
    if mesh is not None and num_chains % mesh.size:
        raise ValueError(
            f"num_chains={num_chains} cannot be spread over the mesh's {mesh.size} "
            f"devices: use {math.ceil(num_chains / mesh.size) * mesh.size}"
        )


def check_traced(
    error: float | None, num_temperatures: int | None, *of_the_host: object
) -> int:
    """The number of temperatures, of traced arrays, for which the host decides nothing.

    Raises:
        ValueError: for a wanted error, or for temperatures that are left open.
    """
    if error is not None or num_temperatures is None:
        raise ValueError(
            f"error={error} and num_temperatures={num_temperatures}: under jit or vmap "
            "give num_temperatures and no error; so too where path closes over arrays "
            "that are differentiated, or give these as data"
        )
    if any(setting is not None for setting in of_the_host):
        raise ValueError("under jit or vmap checkpoint and mesh must be None")
    return num_temperatures


class Task(NamedTuple):
    """A compiled path and its data.

    Attributes:
        programs: of the path.
        x: its data.
        base: that was fitted, or None for the path's own.
        mesh: devices over which the chains are spread, or None for one device.
    """

    programs: Programs
    x: PyTree
    base: BaseFit | None = None
    mesh: Mesh | None = None

    @property
    def name(self) -> str:
        """What a stage of the progress ends in."""
        return "" if self.base is None else ", fitted base"

    def begin(
        self, key: PRNGKey, part: int, places: tuple, pilot: Pilot
    ) -> tuple[Chains, PilotMemory]:
        """`Programs.begin`, with the chains spread over the mesh."""
        chains, memory = self.programs.begin(self.x, key, part, places, pilot)
        if self.mesh is not None:
            devices = Mesh(self.mesh.devices.ravel(), "chains")  # axes are automatic
            chains = jax.device_put(chains, NamedSharding(devices, P(None, "chains")))
        return chains, memory


class Found(NamedTuple):
    """What a pilot has found.

    Attributes:
        pilot: for the frozen schedule.
        num: temperatures of its next pass.
        length: of the path, `pilots.length`.
        fit: of a base to its chains at the target, where the path is long and a base
            may be fitted.
    """

    pilot: Pilot
    num: int
    length: float
    fit: BaseFit | None = None


class Meter:
    """What a search has spent, and what it may."""

    def __init__(
        self,
        limits: Limits,
        num_chains: int,
        progress: Callable[[Progress], object] | None,
    ):
        self.limits, self.num_chains, self.progress = limits, num_chains, progress
        self.spent, self.expected, self.started = 0, 0, time.monotonic()
        self.latest = math.nan, math.nan

    @property
    def seconds(self) -> float:
        """Since the search began."""
        return time.monotonic() - self.started

    def expect(self, moves: int) -> None:
        """So many further moves of each chain are to come."""
        self.expected = max(self.expected, self.spent + moves * self.num_chains)

    def pay(self, stage: str, moves: int) -> None:
        """Counts moves of each chain, and tells where the search stands."""
        self.spent += moves * self.num_chains
        self.expected = max(self.expected, self.spent)
        if self.progress is not None:
            state = self.spent, self.expected, self.seconds, *self.latest
            self.progress(Progress(stage, *state))

    def allows(self, moves: int) -> bool:
        """Whether so many further moves of each chain are within the limits."""
        more = moves * self.num_chains
        seconds = self.seconds * (1.0 + more / max(self.spent, 1))
        is_timely = self.spent == 0 or seconds <= self.limits.max_seconds
        return self.spent + more <= self.limits.max_moves and is_timely


def find(
    meter: Meter,
    task: Task,
    key: PRNGKey,
    found: Found | None = None,
    can_refit: bool = False,
) -> Found:
    """Runs a pilot: a tempered pass, and others until the acceptance is there.

    Args:
        meter: counts.
        task: the path.
        key: of the call.
        found: by the first pass, where that is made already.
        can_refit: whether the first pass is enough where the path is long, since a base
            will be fitted to it.

    Raises:
        ValueError: where no chain is sound.
    """
    pilot, num, i = (None, 0, 0) if found is None else (found.pilot, found.num, 1)
    while True:
        if pilot is None:
            pilot = task.programs.blank(task.x)
        part = PILOT if task.base is None else NEAR_PILOT
        places = np.int32(i), np.int32(0)
        chains, memory = task.begin(key, part, places, pilot)
        steering = steer(pilot, is_pilot=True, is_first=i == 0)
        advanced = task.programs.advance(task.x, chains, memory, steering)
        if np.all(np.asarray(advanced.chains.is_unsound)):
            raise ValueError(
                "all chains met a density of NaN or +inf: look for NaN among the data, "
                "and return -inf where the density is zero"
            )
        done = int(advanced.memory.i)
        meter.pay(f"pilot{task.name}", done * (pilots.MOVES if i == 0 else 1))
        num = num or int(np.clip(2 * done, 8, 64))
        pilot, error, length = end_pass(
            advanced.memory, pilot, steering.is_first, np.int32(num)
        )
        found = Found(pilot, num, float(length))
        is_long = can_refit and found.length > LONG
        is_settled = i >= NUM_ROUNDS and float(error) <= pilots.LARGEST_ERROR
        if (is_long and i == 0) or is_settled or i >= MOST_ROUNDS:
            fit = fit_clouds(advanced.chains.clouds) if is_long else None
            return found._replace(fit=fit)
        i += 1


def steer(
    pilot: Pilot,
    *,
    is_pilot: bool,
    is_first: bool = False,
    num: int = 1,
    first: int = 0,
) -> Steering:
    """`Steering` of numbers of the host."""
    most = len(pilot.density) * pilots.MOVES
    return Steering(
        np.asarray(is_pilot),
        np.asarray(is_first),
        pilot,
        frozen_moves(pilot, np.int32(num), np.int32(first)),
        np.asarray(first, np.int32),
        np.asarray(most if is_pilot else min(num - first, SEGMENT), np.int32),
    )


def first_temperatures(meter: Meter, found: Found) -> int:
    """T to begin with: the path's length and the pilot's cost ask for it."""
    pilot_moves = meter.spent / meter.num_chains
    wanted = max(PER_LENGTH * found.length**2, PER_PILOT * pilot_moves)
    most = meter.limits.max_moves / meter.num_chains / 4
    return int(max(min(math.ceil(wanted), most), FEWEST_TEMPERATURES))
