"""How noisy, and how biased, each estimator's gradients are at a trained model.

All estimators see the same random batches at the run's parameters. The exact gradient
of a batch for theta is that of exact posterior samples, here of long chains of HMC; for
phi that of the ELBO, by many draws.
"""

import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ais_jax import batching, estimators
from ais_jax.numerics import effective_sample_size
from ais_jax.training.step import sampled_gradient
from ais_jax.training.step_sizes import StepSizeRule, update_step_sizes
from experiments.evaluate.evaluate import training_cost
from experiments.run import build, folder, launch
from experiments.run.settings import resolve
from experiments.system.errors import InputError
from experiments.system.files import write_json

ESTIMATORS = (
    *("dreg-K1", "dreg-K5", "dreg-K55"),
    *("ais-K1-T5", "ais-K1-T11", "ais-K5-T5", "ais-K5-T11"),
    *("mh_hmc-K1-T5", "mh_hmc-K1-T11", "mh_hmc-K5-T5"),
)
EXACT = "mh_hmc-K1-T100+phi_loss=stl+num_phi_samples=256"
ADAPTATION_STEPS = 50
FASTER = {"grow": 1.1, "shrink": 0.9}  # step sizes adapt in few steps


def run(workdir, names=None, num_batches=100, overrides=None):
    """Measures at the newest checkpoint of a run, its first replicate.

    The folder gets a gradients.json, whose content is returned. It takes at least 3
    batches.
    """
    settings = resolve(folder.saved_config(workdir, overrides))
    trained, dataset = launch.open_run(settings, workdir)
    names = (*(names or ESTIMATORS), EXACT)
    estimates = {name: make_estimator(name, trained) for name in names}
    rows = measure(trained, dataset, estimates, num_batches)
    results = {
        "epochs": training_cost(trained, dataset)["epochs"],
        "num_batches": num_batches,
        "rows": rows,
        "config": trained.settings.saved,
        **folder.provenance(),
    }
    write_json(Path(workdir) / "gradients.json", results)
    print(table(rows))
    return results


def make_estimator(name, trained):
    """The estimator of a name such as 'dreg-K5' or 'ais-K5-T11+final_moves=2'.

    Other settings follow as +name=value. HMC's own, where they are not given, are those
    of the run where both have them.
    """
    parts = re.fullmatch(r"(\w+)-K(\d+)(?:-T(\d+))?((?:\+\w+=\w+)*)", name)
    try:
        if parts is None:
            raise ValueError("write it as in 'dreg-K5' or 'ais-K5-T11+final_moves=2'")
        method, num_samples, num_temperatures, others = parts.groups()
        known = estimators.settings_of(method)
        settings = {"num_samples": int(num_samples)}
        if num_temperatures:
            settings["num_temperatures"] = int(num_temperatures)
        shared = {"num_leapfrog": "num_leapfrog", "preconditioner": "hmc_scale"}
        for ours, theirs in shared.items():
            if theirs in known and ours in trained.settings.estimator:
                settings[theirs] = trained.settings.estimator[ours]
        for setting, value in re.findall(r"(\w+)=(\w+)", others):
            settings[setting] = int(value) if value.isdecimal() else value
        return estimators.make(method, trained.model, **settings)
    except ValueError as error:
        raise InputError(f"estimators={name!r}: {error}") from error


def measure(trained, dataset, estimates, num_batches):
    """Rows of each estimator: name, cost, ESS as a share of N, what `compare` gives.

    What begins with `phi_` is of phi's gradient, beside the ELBO's: the losses iwae and
    dreg, which aim at a tighter bound, are biased there.
    """
    settings = trained.settings
    x = _batches(settings, dataset, num_batches)

    def draw(name, seed):
        return _gradients(settings, estimates[name], trained.params, x, seed)

    exact, again = draw(EXACT, 0), draw(EXACT, 1)
    rows = []
    for seed, name in enumerate(estimates, 2):
        drawn = again if name == EXACT else draw(name, seed)
        theta, phi = map(compare, drawn[:2], exact[:2], again[:2])
        rows.append(
            {
                "name": name,
                "cost": estimates[name].gradient_evaluations,
                "ess": float(drawn[2]),
                **theta,
                **{f"phi_{key}": value for key, value in phi.items()},
            }
        )
    return rows


def compare(grads, exact, again):
    """Noise and bias of gradients g [R, P] beside two independent exact ones, e and e'.

    The unit is the noise that the choice of the batch gives to the exact gradient,
    tr Cov[e, e']. The noise is what tr Cov[g] has above it, the bias |E[g - e]|^2;
    their errors are standard ones over the batches by the jackknife.
    """
    apart = grads - exact
    products = [a @ b.T for a, b in ((grads, grads), (exact, again), (apart, apart))]
    num = len(grads)
    without = [np.delete(np.arange(num), i) for i in range(num)]
    left = [_statistics([a[np.ix_(i, i)] for a in products]) for i in without]
    errors = np.std(left, axis=0) * np.sqrt(num - 1)
    names = ("noise", "bias", "noise_error", "bias_error")
    return dict(zip(names, map(float, (*_statistics(products), *errors))))


def _statistics(products):
    """The noise and the bias, from inner products of the rows."""
    grads, exact, apart = (np.asarray(a, np.float64) for a in products)
    num, unit = len(grads), _covariance(exact)
    bias = (np.sum(apart) - np.trace(apart)) / (num * (num - 1))
    return _covariance(grads) / unit - 1.0, bias / unit


def _covariance(products):
    """The trace of the covariance of rows, from their inner products."""
    num = len(products)
    return (np.trace(products) - np.sum(products) / num) / (num - 1)


def table(rows):
    """The rows as lines of text."""
    width = max(len(row["name"]) for row in rows)
    head = (
        f"{'estimator':{width}} {'noise':>16} {'bias':>17} {'ESS / N':>8} "
        f"{'cost':>5} {'noise x cost':>12} {'phi: noise':>16} {'bias':>17}"
    )
    lines = [
        f"{row['name']:{width}} {_pair(row, '')} {row['ess']:8.2f} "
        f"{row['cost']:5d} {row['noise'] * row['cost']:12.3g} {_pair(row, 'phi_')}"
        for row in rows
    ]
    note = "cost: gradient evaluations of an image in a training step, phi's included"
    return "\n".join([head, *lines, note])


def _pair(row, prefix):
    noise, noise_error, bias, bias_error = (
        row[prefix + key] for key in ("noise", "noise_error", "bias", "bias_error")
    )
    return f"{noise:8.2f} +- {noise_error:4.2f} {bias:8.3f} +- {bias_error:5.3f}"


def _batches(settings, dataset, num_batches):
    """Random batches of training images, binarized: f32[R, B, X]."""
    rows_key, pixel_key = jax.random.split(jax.random.key(settings.seed))
    shape = num_batches, settings.batch_size
    rows = jax.random.randint(rows_key, shape, 0, len(dataset.train))
    x = jnp.asarray(dataset.train[np.asarray(rows)])
    if not build.draws_pixels(settings, dataset):
        return x
    pixels = jax.random.bernoulli(pixel_key, x).astype(x.dtype)
    return jnp.where(jnp.isnan(x), x, pixels)


def _gradients(settings, estimator, params, x, seed):
    """Gradients f32[R, P] of each batch for theta and for phi, and the mean ESS / N."""
    block = build.block_size(settings, x.shape[-1], estimator.num_samples)
    draws = build.block_size(settings, x.shape[-1], estimator.num_phi_samples)
    theta, phi = params
    rule = StepSizeRule(**FASTER, largest=np.inf)

    @jax.jit
    def gradient(key, x, step_sizes):
        keys = batching.example_keys(key, jnp.arange(len(x)))
        one = partial(sampled_gradient, estimator, theta, phi, step_sizes)
        sums, samples = batching.sum_blocks(one, keys, x, block_size=block)
        keys = batching.example_keys(jax.random.fold_in(key, 0), jnp.arange(len(x)))
        phi_sums = estimator.phi_gradient(phi, theta, keys, x, block_size=draws)
        grads = [-ravel_pytree(s[1])[0] / len(x) for s in (sums, phi_sums)]
        ess = effective_sample_size(samples.log_w) / estimator.num_points
        accept_prob = jnp.mean(samples.accept_prob, axis=0)
        next_sizes = update_step_sizes(rule, step_sizes, accept_prob)
        return *grads, jnp.mean(ess), next_sizes

    key = jax.random.key(seed)
    step_sizes = jnp.full((estimator.num_moves,), settings.first_step_size)
    for i in range(ADAPTATION_STEPS if estimator.num_moves else 0):
        *_, step_sizes = gradient(jax.random.fold_in(key, i), x[0], step_sizes)
    drawn = []
    for i, batch in enumerate(x, ADAPTATION_STEPS):
        drawn.append(gradient(jax.random.fold_in(key, i), batch, step_sizes)[:3])
    of_theta, of_phi, ess = zip(*jax.device_get(drawn))
    return np.stack(of_theta), np.stack(of_phi), np.mean(ess)
