"""How noisy, and how biased, each estimator's gradient for theta is at a trained model.

python -m experiments.gradients --workdir=RUN

All estimators see the same random batches at the run's parameters. The exact gradient
of a batch is that of exact posterior samples, here of long chains of HMC.
"""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.flatten_util import ravel_pytree
from ml_collections import config_flags

from ais_jax import batching, estimators, sharding, training
from ais_jax.adaptation import StepSizeRule, update_step_sizes
from ais_jax.numerics import effective_sample_size
from experiments import builders, cli, datasets, evaluate, runs, train
from experiments.metrics import write_json

ESTIMATORS = [
    "dreg-K1",
    "dreg-K5",
    "dreg-K55",
    "ais-K1-T5",
    "ais-K1-T11",
    "ais-K5-T5",
    "ais-K5-T11",
    "mh_hmc-K1-T5",
    "mh_hmc-K1-T11",
    "mh_hmc-K5-T5",
]
EXACT = "mh_hmc-K1-T100"
ADAPTATION_STEPS = 50
FASTER = {"grow": 1.1, "shrink": 0.9}  # of the step sizes: there are few steps


def run(workdir, names=ESTIMATORS, num_batches=100, overrides=None):
    """Measures at the newest checkpoint of a run, its first replicate.

    Args:
        workdir: the run's folder, which gets a gradients.json.
        names: estimators to measure, as `build` reads them.
        num_batches: R, at least 3.
        overrides: as for `runs.saved_config`; of use is `data_dir`.

    Returns:
        The contents of gradients.json.

    Raises:
        cli.InputError: for bad input, before any long work.
    """
    config = runs.saved_config(workdir, overrides or {})
    datasets.check_available(config.dataset, config.data_dir)
    dataset = datasets.load(config.dataset, config.data_dir)
    setup = builders.build_training(config, dataset)
    made = {name: build(name, config, setup.model) for name in (*names, EXACT)}
    runs.claim(workdir, config, dataset.digest, write=False)
    trained = train.restore(config, setup, workdir)
    params = evaluate.parameters(sharding.fetch(trained.state), 0)
    rows = measure(config, dataset, params, made, num_batches)
    results = {
        "epochs": trained.epochs,
        "num_batches": num_batches,
        "rows": rows,
        "config": runs.plain(config),
        **runs.provenance(),
    }
    write_json(Path(workdir) / "gradients.json", results)
    print(table(rows))
    return results


def build(name, config, model):
    """The estimator of a name such as 'dreg-K5' or 'ais-K5-T11'.

    Its other settings are those of the run where both have them.

    Args:
        name: estimator, K and, where it has moves, T.
        config: the run's ConfigDict.
        model: a `LatentVariableModel`.

    Returns:
        An `Estimator`.

    Raises:
        cli.InputError: where the name is not understood.
    """
    parts = re.fullmatch(r"(\w+)-K(\d+)(?:-T(\d+))?", name)
    try:
        if parts is None:
            raise ValueError("write it as in 'dreg-K5' or 'ais-K5-T11'")
        method, num_samples, num_temperatures = parts.groups()
        known = estimators.settings_of(method)
        settings = {"num_samples": int(num_samples)}
        if num_temperatures:
            settings["num_temperatures"] = int(num_temperatures)
        for shared in ("num_leapfrog", "preconditioner"):
            if shared in known and shared in config.estimator:
                settings[shared] = config.estimator[shared]
        return estimators.make(method, model, **settings)
    except ValueError as error:
        raise cli.InputError(f"estimators={name!r}: {error}") from error


def measure(config, dataset, params, made, num_batches):
    """Measures each estimator on random batches of the training images.

    Args:
        config: the run's ConfigDict.
        dataset: a `datasets.Dataset`.
        params: (theta, phi).
        made: name -> `Estimator`, `EXACT` among them.
        num_batches: R, at least 3.

    Returns:
        List of dicts of the name, the ESS as a share of K, and what `compare` gives.
    """
    x = _batches(config, dataset, num_batches)
    first, _, _ = builders.STEP_SIZES[config.estimator.get("preconditioner", "unit")]
    draw = lambda name, seed: _gradients(config, made[name], params, x, first, seed)
    (exact, _), (again, _) = draw(EXACT, 0), draw(EXACT, 1)
    rows = []
    for seed, name in enumerate(made, 2):
        grads, ess = (again, 1.0) if name == EXACT else draw(name, seed)
        rows.append({"name": name, "ess": float(ess), **compare(grads, exact, again)})
    return rows


def compare(grads, exact, again):
    """Noise and bias of gradients g beside two independent exact ones, e and e'.

    The unit is the noise that the choice of the batch gives to the exact gradient,
    tr Cov[e, e']. The noise is what tr Cov[g] has above it, the bias |E[g - e]|^2.

    Args:
        grads: f32[R, P], an estimator's gradients on R batches.
        exact: f32[R, P], from exact posterior samples of the same batches.
        again: f32[R, P], the same from other samples.

    Returns:
        dict of noise, noise_error, bias and bias_error, the errors standard ones over
        the batches by the jackknife.
    """
    apart = grads - exact
    products = [a @ b.T for a, b in ((grads, grads), (exact, again), (apart, apart))]
    num = len(grads)
    drop = lambda a, i: np.delete(np.delete(a, i, 0), i, 1)
    left = [_statistics([drop(a, i) for a in products]) for i in range(num)]
    errors = np.std(left, axis=0) * np.sqrt(num - 1)
    names = ("noise", "bias", "noise_error", "bias_error")
    return dict(zip(names, map(float, (*_statistics(products), *errors))))


def _statistics(products):
    """The noise and the bias, from inner products of the rows."""
    own, exact, apart = (np.asarray(a, np.float64) for a in products)
    num = len(own)
    covariance = lambda a: (np.trace(a) - np.sum(a) / num) / (num - 1)
    unit = covariance(exact)
    bias = (np.sum(apart) - np.trace(apart)) / (num * (num - 1))
    return covariance(own) / unit - 1.0, bias / unit


def table(rows):
    """The rows as lines of text."""
    form = (
        "{name:16} {noise:8.2f} +- {noise_error:4.2f} {bias:8.3f} +- {bias_error:5.3f}"
        " {ess:8.2f}"
    ).format
    head = f"{'estimator':16} {'noise':>16} {'bias':>17} {'ESS / K':>8}"
    return "\n".join([head] + [form(**row) for row in rows])


def _batches(config, dataset, num_batches):
    """Random batches of training images, binarized: f32[R, B, X]."""
    rows_key, pixel_key = jax.random.split(jax.random.key(config.seed))
    shape = num_batches, config.batch_size
    rows = jax.random.randint(rows_key, shape, 0, len(dataset.train))
    x = jnp.asarray(dataset.train[np.asarray(rows)])
    if dataset.is_binary:
        return x
    return jax.random.bernoulli(pixel_key, x).astype(x.dtype)


def _gradients(config, estimator, params, x, step_size, seed):
    """Gradients f32[R, P] of the mean over each batch, and the mean ESS over K."""
    block = builders.block_size(config, x.shape[-1], estimator.num_samples)
    rule = StepSizeRule(**FASTER, largest=np.inf)

    @jax.jit
    def gradient(key, x, step_sizes):
        keys = batching.example_keys(key, jnp.arange(len(x)))
        one = lambda *batch: training.theta_gradient(
            estimator, *params, step_sizes, *batch
        )
        sums, (accept_prob, log_w) = batching.sum_blocks(one, keys, x, block_size=block)
        flat, _ = ravel_pytree(sums[1])
        ess = effective_sample_size(log_w) / estimator.num_samples
        next_sizes = update_step_sizes(rule, step_sizes, jnp.mean(accept_prob, axis=0))
        return -flat / len(x), jnp.mean(ess), next_sizes

    key = jax.random.key(seed)
    step_sizes = jnp.full((estimator.num_moves,), step_size)
    for i in range(ADAPTATION_STEPS if estimator.num_moves else 0):
        *_, step_sizes = gradient(jax.random.fold_in(key, i), x[0], step_sizes)
    found = []
    for i, batch in enumerate(x, ADAPTATION_STEPS):
        found.append(gradient(jax.random.fold_in(key, i), batch, step_sizes)[:2])
    grads, ess = zip(*jax.device_get(found))
    return np.stack(grads), np.mean(ess)


def main():
    """Measures the run that the flags name."""
    args = flags.FLAGS
    overrides = config_flags.get_override_values(args["config"])
    run(args.workdir, args.estimators, args.num_batches, overrides)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Folder of the run.")
    flags.DEFINE_list("estimators", ESTIMATORS, "What to measure.")
    flags.DEFINE_integer("num_batches", 100, "Batches to average over.", 3)
    cli.define_config("digits.py")
    cli.run(main)
