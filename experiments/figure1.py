"""Figure 1: how close q_IS and q_AIS come to a correlated Gaussian at equal cost.

python -m experiments.figure1 --config=configs/figure1.py
"""

import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from ais_jax import proposals, schedules, toy
from ais_jax.hmc import hmc_step
from configs.figure1 import get_config
from experiments import runs
from experiments.builders import ConfigError
from experiments.metrics import write_json
from experiments.plots import COLOURS, MARKERS

DEFAULT_CONFIG = Path(__file__).parents[1] / "configs" / "figure1.py"
BLOCK = 4_000_000  # samples held at a time
HALF_WIDTH = 3.2  # of the panels, in the target's standard deviations


class Row(NamedTuple):
    """One distribution: its cost, and how far its draws are from the target.

    Attributes:
        name: 'q', 'q_IS', 'q_AIS' or 'p' (exact draws, a check of the errors).
        cost: K for importance sampling, L*K*T for AIS.
        num_samples: K of Algorithm 2.
        num_temperatures: T, 0 where nothing is annealed.
        mmd2: squared maximum mean discrepancy to the target.
        standard_error: of mmd2.
        accept_prob: mean acceptance of the HMC moves.
    """

    name: str
    cost: int
    num_samples: int
    num_temperatures: int
    mmd2: float = math.nan
    standard_error: float = math.nan
    accept_prob: float = math.nan

    @property
    def label(self):
        """What tells the draws of one row from another's."""
        if self.name in ("p", "q"):
            return self.name
        return f"{self.name}_cost{self.cost}_K{self.num_samples}"


def run(config, workdir=None):
    """Draws, measures and plots, and writes the results.

    Args:
        config: a ConfigDict of `configs/figure1.py`'s shape.
        workdir: the folder to write, or None for a new one under runs/figure1.

    Returns:
        The contents of results.json.

    Raises:
        ConfigError: for a bad setting, before any computation.
    """
    start = time.perf_counter()
    rows = plan(config)
    workdir = Path(workdir or Path("runs/figure1") / time.strftime("%Y%m%d-%H%M%S"))
    runs.prepare(workdir)
    print(f"Working directory: {workdir}", flush=True)
    rows, draws = measure(config, rows)
    plot(config, rows, draws, workdir / "figure1.png")
    np.savez(workdir / "draws.npz", **{row.label: z for row, z in zip(rows, draws)})
    covariance = toy.correlated(config.correlation)
    independent = np.diag(toy.best_independent_variances(covariance))
    results = {
        "config": config.to_dict(),
        "exact_mmd2_of_q": toy.gaussian_mmd2(independent, covariance, config.bandwidth),
        "rows": [row._asdict() for row in rows],
        "seconds": time.perf_counter() - start,
        "provenance": runs.provenance(),
    }
    write_json(workdir / "results.json", results)
    print(table(rows))
    print(f"{results['seconds']:.0f} s; see {workdir / 'figure1.png'}")
    return results


def plan(config):
    """Checks every setting and lists the distributions to draw, not yet measured.

    Raises:
        ConfigError: one line that names the setting, its value and the mend.
    """
    check(config)
    rows = [Row("p", 0, 0, 0), Row("q", 1, 1, 0)]
    rows += [Row("q_IS", cost, cost, 0) for cost in config.costs]
    for num_samples in config.num_samples:
        for cost in config.costs:
            num_temperatures = _temperatures(cost, config.num_leapfrog, num_samples)
            rows.append(Row("q_AIS", cost, num_samples, num_temperatures))
    return rows


def check(config):
    """Checks each setting by itself.

    Raises:
        ConfigError: one line that names the setting, its value and the mend.
    """
    known = get_config()
    for name in sorted(known.keys() ^ config.keys()):
        if name not in known:
            raise ConfigError(schedules.unknown_name("setting", name, known))
        raise ConfigError(f"{name} is missing: add it, for example {known[name]!r}")
    for name, least in (("num_leapfrog", 1), ("num_draws", 100), ("seed", 0)):
        _check_whole(name, config[name], least)
    for name in ("costs", "num_samples"):
        for value in config[name]:
            _check_whole(name, value, 1)
        if not config[name] or list(config[name]) != sorted(set(config[name])):
            raise ConfigError(f"{name}={config[name]}: give rising whole numbers")
    for name in ("step_size", "bandwidth"):
        if not 0.0 < config[name] < math.inf:
            raise ConfigError(f"{name}={config[name]}: use a positive number")
    try:
        toy.correlated(config.correlation)
        schedules.make(config.schedule, 1)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def measure(config, rows):
    """Draws each distribution and estimates its discrepancy to the target.

    Args:
        config: a checked ConfigDict.
        rows: as `plan` gives.

    Returns:
        (the rows with their measurements, their draws: a list of f32[N, 2]).
    """
    key = jax.random.key(config.seed)
    covariance = toy.correlated(config.correlation)
    discrepancy = jax.jit(
        lambda z: toy.mmd2_to_gaussian(z, covariance, config.bandwidth)
    )
    measured, draws = [], []
    for i, row in enumerate(rows):
        z, accept_prob = jax.jit(partial(_draw, config=config, row=row))(
            jax.random.fold_in(key, i)
        )
        mmd2, error = (float(value) for value in discrepancy(z))
        accept_prob = float(accept_prob) if row.num_temperatures else math.nan
        row = row._replace(mmd2=mmd2, standard_error=error, accept_prob=accept_prob)
        measured.append(row)
        draws.append(np.asarray(z))
    return measured, draws


def table(rows):
    """The measurements as lines of text."""
    lines = ["distribution   cost     K     T      MMD^2  std error  acceptance"]
    for row in rows:
        accept = f"{row.accept_prob:.2f}" if row.num_temperatures else "-"
        lines.append(
            f"{row.name:12} {row.cost:6d} {row.num_samples:5d} "
            f"{row.num_temperatures:5d} {row.mmd2:10.6f} {row.standard_error:10.6f} "
            f"{accept:>11}"
        )
    return "\n".join(lines)


def plot(config, rows, draws, path):
    """Draws the densities (left) and the discrepancy against the cost (right)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.0, 4.9), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1.0))
    costs = config.costs
    shown = sorted({costs[0], costs[len(costs) // 2], costs[-1]})
    found = {
        (row.name, row.cost): (row, z) for row, z in reversed(list(zip(rows, draws)))
    }
    order = [("p", 0), *(("q_IS", cost) for cost in shown)]
    order += [("q", 1), *(("q_AIS", cost) for cost in shown)]
    panels = left.subplots(2, 1 + len(shown), sharex=True, sharey=True)
    for axes, name in zip(panels.flat, order):
        _plot_density(axes, *found[name], config.correlation)
    left.suptitle("(a) draws (shaded); regions of 50% and 95% of the target (lines)")
    left.supxlabel("$z_1$")
    left.supylabel("$z_2$")
    _plot_discrepancy(right.subplots(), rows)
    right.suptitle("(b) distance to the target at equal cost")
    figure.savefig(path, dpi=160)


def _plot_density(axes, row, z, correlation):
    """A histogram of the draws under contours of the target."""
    from matplotlib.colors import LinearSegmentedColormap

    colour = {"q_IS": COLOURS[0], "q_AIS": COLOURS[1]}.get(row.name, "0.3")
    shades = LinearSegmentedColormap.from_list("shades", ["white", colour])
    edges = np.linspace(-HALF_WIDTH, HALF_WIDTH, 49)
    density = np.histogram2d(*z.T, bins=edges)[0] / len(z) / (edges[1] - edges[0]) ** 2
    peak = 0.5 / math.pi / math.sqrt(1.0 - correlation**2)  # of the target
    axes.pcolormesh(edges, edges, density.T, cmap=shades, vmin=0.0, vmax=peak)
    angle = np.linspace(0.0, 2.0 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    ellipse = np.linalg.cholesky(toy.correlated(correlation)) @ circle
    for mass in (0.5, 0.95):
        radius = math.sqrt(-2.0 * math.log(1.0 - mass))
        axes.plot(*(radius * ellipse), color="black", linewidth=0.8)
    axes.set_title(_title(row), fontsize=9)
    axes.set(aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))


def _title(row):
    """One panel's heading."""
    cost = f", cost {row.cost}"
    return {
        "p": "target $p$, exact draws",
        "q": "$q$, best independent",
        "q_IS": f"$q_{{IS}}${cost}: $K$={row.num_samples}",
        "q_AIS": f"$q_{{AIS}}${cost}: $K$={row.num_samples}, $T$={row.num_temperatures}",
    }[row.name]


def _plot_discrepancy(axes, rows):
    """MMD^2 against cost, on an axis that is linear where the noise begins."""
    exact, q = rows[:2]
    noise = 2.0 * exact.standard_error
    axes.axhspan(-noise, noise, color="0.9", label="exact draws of $p$, ±2 s.e.")
    band = q.mmd2 - 2 * q.standard_error, q.mmd2 + 2 * q.standard_error
    axes.axhspan(*band, color="0.3", label="$q$, ±2 s.e.")
    curves = {}
    for row in rows[2:]:
        name = (
            "$q_{IS}$" if row.name == "q_IS" else f"$q_{{AIS}}$, $K$={row.num_samples}"
        )
        curves.setdefault(name, []).append(row)
    for i, (name, curve) in enumerate(curves.items()):
        style = {"color": COLOURS[i % 7], "marker": MARKERS[i % 7], "markersize": 5}
        x, y, error = zip(*((r.cost, r.mmd2, 2 * r.standard_error) for r in curve))
        axes.errorbar(x, y, error, label=f"{name}, ±2 s.e.", capsize=3, **style)
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=noise)
    axes.set(xlabel="cost: $K$ of $q_{IS}$, $LKT$ of $q_{AIS}$", ylabel="MMD$^2$")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def _draw(key, config, row):
    """Draws of one row's distribution: (f32[N, 2], mean acceptance)."""
    covariance = toy.correlated(config.correlation)
    if row.name == "p":
        return toy.sample(key, covariance, config.num_draws), jnp.zeros(())
    proposal = proposals.importance(row.num_samples)
    if row.num_temperatures:
        betas = schedules.make(config.schedule, row.num_temperatures)
        transition = partial(hmc_step, num_leapfrog=config.num_leapfrog)
        proposal = proposals.annealed(betas, transition, row.num_samples)
    path = toy.gaussian_path(covariance)
    step_sizes = jnp.full((row.num_temperatures,), config.step_size)
    block = max(1, BLOCK // row.num_samples)
    return toy.draw(key, path, proposal, step_sizes, config.num_draws, block)


def _check_whole(name, value, least):
    if type(value) is not int or value < least:
        raise ConfigError(f"{name}={value!r}: use a whole number of at least {least}")


def _temperatures(cost, num_leapfrog, num_samples):
    """T, such that L*K*T is the cost."""
    unit = num_leapfrog * num_samples
    if cost % unit:
        raise ConfigError(
            f"costs={cost} is no multiple of num_leapfrog * num_samples = "
            f"{num_leapfrog} * {num_samples}: use {unit * max(1, round(cost / unit))}, "
            "or change these"
        )
    return cost // unit


def main(_):
    """Runs; bad input is one line and exit status 2."""
    try:
        run(flags.FLAGS.config, flags.FLAGS.workdir)
    except ConfigError as error:
        _fail(error)


def parse(argv):
    """Defines and parses the flags; bad ones are one line and exit status 2."""
    for name in (arg.lstrip("-") for arg in argv[1:]):
        setting = name.removeprefix("config.").split("=")[0]
        if name.startswith("config.") and setting not in (known := get_config()):
            _fail(schedules.unknown_name("setting", setting, known))
    try:
        config_flags.DEFINE_config_file(
            "config", str(DEFAULT_CONFIG), "Config file.", sys_argv=argv
        )
        flags.DEFINE_string("workdir", None, "Folder to write. Default: a new one.")
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, OSError) as error:
        _fail(" ".join(str(error).split()))


def _fail(message):
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
