"""Figure 1: how close q_IS and q_AIS come to a correlated Gaussian at equal cost."""

import math
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import schedules
from ais_jax.annealing import proposals
from ais_jax.annealing.hmc import hmc_step
from ais_jax.checks import unknown_name
from configs.figure1 import get_config
from experiments.evaluate.plots import curve_style
from experiments.paper import toy
from experiments.run.folder import provenance
from experiments.system import devices
from experiments.system.errors import InputError
from experiments.system.files import prepare, timestamp, write_json

LEAST = {"num_leapfrog": 1, "num_draws": 100, "seed": 0}


class Row(NamedTuple):
    """One distribution: its cost, and how far its draws are from the target."""

    name: str  # 'p' (exact draws, which show the noise), 'q', 'q_IS' or 'q_AIS'
    cost: int  # K for importance sampling, L*K*T for AIS
    num_samples: int  # K of Algorithm 2
    num_temperatures: int  # T, 0 where nothing is annealed
    mmd2: float = math.nan  # squared maximum mean discrepancy to the target
    standard_error: float = math.nan  # of mmd2
    accept_prob: float = math.nan  # mean acceptance of the HMC moves


def run(config, workdir=None):
    """Draws, measures and plots, and writes the results, which it returns."""
    start = time.perf_counter()
    rows = plan(config)
    devices.require_device()
    workdir = Path(workdir or Path("runs/figure1") / timestamp())
    prepare(workdir)
    print(f"Working directory: {workdir}", flush=True)
    rows, draws = measure(config, rows)
    plot(config, rows, draws, workdir / "figure1.png")
    np.savez(workdir / "draws.npz", draws=draws)  # in the order of the rows
    covariance = toy.correlated(config.correlation)
    independent = np.diag(toy.best_independent_variances(covariance))
    results = {
        "config": config.to_dict(),
        "exact_mmd2_of_q": toy.gaussian_mmd2(independent, covariance, config.bandwidth),
        "rows": [row._asdict() for row in rows],
        "seconds": time.perf_counter() - start,
        "provenance": provenance(),
    }
    write_json(workdir / "results.json", results)
    print(table(rows), f"{results['seconds']:.0f} seconds", sep="\n")
    return results


def plan(config):
    """Checks every setting and lists the distributions, not yet measured.

    They are p, q, q_IS at each cost, then q_AIS at each K and cost.
    """
    _check(config)
    rows = [Row("p", 0, 0, 0), Row("q", 1, 1, 0)]
    rows += [Row("q_IS", cost, cost, 0) for cost in config.costs]
    for num_samples in config.num_samples:
        unit = config.num_leapfrog * num_samples
        for cost in config.costs:
            if cost % unit:
                raise InputError(
                    f"costs={cost} is no multiple of num_leapfrog * num_samples = "
                    f"{config.num_leapfrog} * {num_samples}: use "
                    f"{unit * max(1, round(cost / unit))}, or change these"
                )
            rows.append(Row("q_AIS", cost, num_samples, cost // unit))
    return rows


def _check(config):
    """Checks each setting by itself."""
    known = get_config()
    for name in config:
        if name not in known:
            raise InputError(unknown_name("setting", name, known))
    for name, default in known.items():
        value = config.get(name)
        if type(value) is not type(default):
            raise InputError(f"{name}={value!r}: give one like {default!r}")
        if name in LEAST and value < LEAST[name]:
            raise InputError(f"{name}={value}: use at least {LEAST[name]}")
        if name in ("step_size", "bandwidth") and not 0.0 < value < math.inf:
            raise InputError(f"{name}={value}: use a positive number")
        if type(value) is tuple and not _rises(value):
            raise InputError(f"{name}={value}: list whole numbers that rise, >= 1")
    try:
        toy.correlated(config.correlation)
        schedules.make(config.schedule, 1)
    except ValueError as error:
        raise InputError(error) from error


def _rises(values):
    """Whether values are one or more positive whole numbers, each above the last."""
    whole = all(type(value) is int for value in values)
    return bool(values) and whole and list(values) == sorted({0, *values})[1:]


def measure(config, rows):
    """Draws from each row's distribution: (measured rows, draws f32[rows, N, 2])."""
    key = jax.random.key(config.seed)
    covariance = toy.correlated(config.correlation)
    distance = jax.jit(lambda z: toy.mmd2_to_gaussian(z, covariance, config.bandwidth))
    measured, draws = [], []
    for i, row in enumerate(rows):
        draw = jax.jit(partial(_draw, config=config, row=row))
        z, accept_prob = draw(jax.random.fold_in(key, i))
        values = [float(value) for value in (*distance(z), accept_prob)]
        measured.append(Row(*row[:4], *values))
        draws.append(np.asarray(z))
    return measured, np.stack(draws)


def _draw(key, config, row):
    """Draws of one row's distribution: (f32[N, 2], mean acceptance)."""
    covariance = toy.correlated(config.correlation)
    if row.name == "p":
        return toy.sample(key, covariance, config.num_draws), math.nan
    proposal = proposals.importance(row.num_samples)
    if row.num_temperatures:
        betas = schedules.make(config.schedule, row.num_temperatures)
        transition = partial(hmc_step, num_leapfrog=config.num_leapfrog)
        proposal = proposals.annealed(betas, transition, row.num_samples)
    path = toy.gaussian_path(covariance)
    step_sizes = jnp.full((row.num_temperatures,), config.step_size)
    return toy.draw(key, path, proposal, step_sizes, config.num_draws)


def table(rows):
    """The measurements as lines of text."""
    lines = ["name    cost     K     T      MMD^2  std error  acceptance"]
    form = "{:5} {:6d} {:5d} {:5d} {:10.6f} {:10.6f} {:11.2f}".format
    return "\n".join(lines + [form(*row).replace("nan", "  -") for row in rows])


def plot(config, rows, draws, path):
    """Plots the draws (left) and the discrepancy against the cost (right)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.0, 4.9), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.75, 1.0))
    shown = sorted({config.costs[i] for i in (0, len(config.costs) // 2, -1)})
    first = {row[:2]: i for i, row in reversed(list(enumerate(rows)))}
    order = [("p", 0), *(("q_IS", cost) for cost in shown), ("q", 1)]
    order += [("q_AIS", cost) for cost in shown]
    panels = left.subplots(2, 1 + len(shown), sharex=True, sharey=True)
    for axes, name in zip(panels.flat, order):
        _plot_density(axes, rows[first[name]], draws[first[name]], config.correlation)
    left.suptitle("(a) draws (shaded); 50% and 95% regions of the target (lines)")
    left.supxlabel("$z_1$")
    left.supylabel("$z_2$")
    right.suptitle("(b) distance to the target against cost")
    _plot_distance(right.subplots(), rows)
    figure.savefig(path, dpi=160)


def _plot_density(axes, row, z, correlation):
    """A histogram of the draws under contours of the target."""
    shades = {"q_IS": "Blues", "q_AIS": "Oranges"}.get(row.name, "Greys")
    top = 0.75 / math.pi / math.sqrt(1.0 - correlation**2)  # 1.5 times its peak
    grid = np.linspace(-3.2, 3.2, 49)
    axes.hist2d(*z.T, grid, density=True, cmap=shades, vmin=0, vmax=top, cmin=1e-9)
    angle = np.linspace(0.0, 2.0 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    ellipse = np.linalg.cholesky(toy.correlated(correlation)) @ circle
    for mass in (0.5, 0.95):
        axes.plot(*math.sqrt(-2.0 * math.log(1.0 - mass)) * ellipse, "k", lw=0.8)
    ends = {"p": "$p$: the target", "q": "$q$: best independent"}
    axes.set_title(ends.get(row.name, f"{_curve(row)}, cost {row.cost}"), fontsize=9)
    axes.set(aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))


def _curve(row):
    return {"q_IS": "$q_{IS}$"}.get(row.name, f"$q_{{AIS}}$, $K$ = {row.num_samples}")


def _plot_distance(axes, rows):
    """MMD^2 against cost, on an axis that is linear within the noise."""
    noise, q = 2.0 * rows[0].standard_error, rows[1]
    band = (q.mmd2 - 2.0 * q.standard_error, q.mmd2 + 2.0 * q.standard_error)
    axes.axhspan(*band, color="0.25", lw=1, label="$q$")
    axes.axhspan(-noise, noise, color="0.9", lw=0, label="exact draws of $p$")
    for i, name in enumerate(dict.fromkeys(map(_curve, rows[2:]))):
        curve = [row for row in rows[2:] if _curve(row) == name]
        x, y, error = zip(*((r.cost, r.mmd2, 2.0 * r.standard_error) for r in curve))
        style = curve_style(i) | {"markersize": 5, "capsize": 3}
        axes.errorbar(x, y, error, label=name, **style)
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=noise)
    axes.set_yticks([0.0, *(10.0**i for i in range(-8, 1) if 10.0**i >= noise)])
    axes.set_ylim(-2.5 * noise, 2.0 * max(q.mmd2, noise))
    axes.set(xlabel="cost: $K$ of $q_{IS}$, $LKT$ of $q_{AIS}$", ylabel="MMD$^2$")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="bars and bands: ±2 s.e.", loc="lower left", fontsize=8)
