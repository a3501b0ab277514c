"""Evaluation of a trained model: log p(x) with errors, and the proof beside it."""

import hashlib
import json
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import sharding
from ais_jax.evidence.estimates import Bounds
from ais_jax.evidence.plan import Plan, resample_plan
from configs import presets
from experiments.data.dataset import Dataset
from experiments.evaluate import diagnostics, pictures, test_set_mean
from experiments.evaluate.evaluator import AIS, ENCODER, Evaluator
from experiments.run import build
from experiments.run.folder import VERSION, provenance
from experiments.run.metrics import last_row
from experiments.run.run import Run
from experiments.system.devices import is_first
from experiments.system.files import read_arrays, write_arrays, write_json
from experiments.system.progress import log

ACTIVE_UNIT_VARIANCE = 0.01
CURVE_EXAMPLES = 200  # test images of a learning curve


def evaluate(run: Run, dataset: Dataset):
    """Evaluates every replicate, writes plots and results.json and returns the latter.

    Finished chunks are kept in the run's `evaluation`, so that a stopped evaluation
    goes on where it was. Its results are kept there too, as `evaluation.json`;
    results.json is a copy of the newest.
    """
    started = time.monotonic()
    evaluator = Evaluator(run, dataset, run.settings.evaluation)
    diagnostics.of_few_images(evaluator.settings, dataset)
    folder = _folder(run, evaluator)
    parts = [
        _evaluate_one(params, evaluator, folder / f"replicate_{r}")
        for r, params in enumerate(run.replicates)
    ]
    results = {
        "version": VERSION,
        **_summary([part["test"] for part in parts]),
        "replicates": parts,
        **training_cost(run, dataset),
        "evaluation_seconds": time.monotonic() - started,
        "config": run.settings.saved,
        "data": {"digest": dataset.digest, "source": dataset.source},
        **provenance(),
    }
    if is_first():
        for path in (folder / "evaluation.json", run.folder / "results.json"):
            write_json(path, results)
        pictures.draw(run, evaluator, parts[0])
    return results


def training_cost(run, dataset):
    """What the training of a run cost: the numbers of results.json, by their names.

    Gradient evaluations are passes forward and backward through log p(x, z), for one
    replicate; seconds are summed over resumes.
    """
    batch_size = run.settings.batch_size
    estimator = build.build_estimator(run.settings, run.model)
    return {
        "epochs": run.step / (len(dataset.train) // batch_size),
        "steps": run.step,
        "gradient_evaluations": run.step * batch_size * estimator.gradient_evaluations,
        "training_seconds": last_row(run.folder).get("seconds", 0.0),
    }


def report(results):
    """The results as lines of text."""
    test = results["replicates"][0]["test"]
    gap = results["replicates"][0].get("bidirectional")
    bounds = {
        "ELBO": test["elbo"]["mean"],
        f"IWAE-{results['config']['evaluation']['iwae_samples']}": test["iwae"]["mean"],
        "AIS": test["log_p"]["mean"],
    }
    is_ordered = sorted(bounds.values()) == list(bounds.values())
    order = (" < " if is_ordered else ", ").join(
        f"{name} {value:.2f}" for name, value in bounds.items()
    )
    log_p = results["test_log_p"]
    settings = results["config"]["evaluation"]
    lines = [
        f"test log p(x) = {log_p['mean']:.2f} "
        f"{_error(log_p['standard_error'], 'one image', 2)} nats "
        f"({log_p['error_over']}; Monte Carlo "
        f"{_error(test['log_p']['monte_carlo'], 'one chain')}; "
        f"{test['num_examples']} images)",
        f"  {order}; "
        f"KL {test['kl']['mean']:.2f}; {test['active_units']} active units; "
        f"ESS {test['ess']['mean']:.1f} of {settings['num_chains']} chains",
    ]
    if whole := test.get("log_p_all"):
        lines.append(
            f"  all {whole['num_examples']} test images, by regression on the ELBO: "
            f"{whole['mean']:.2f} +- {whole['standard_error']:.2f}"
        )
    if gap:
        lines.append(
            f"  bidirectional gap on simulated data {gap['gap'][-1]:.3f} "
            f"{_error(gap['gap_error'][-1], 'one image')} nats at T = "
            f"{gap['num_temperatures'][-1]}"
        )
    return "\n".join(lines)


def _error(value, lone, digits=3):
    """A standard error as text; of a lone sample there is none."""
    return f"({lone}: no error)" if np.isnan(value) else f"+- {value:.{digits}f}"


def curve(setup, dataset):
    """A quick test log p(x) for learning curves: `Run` -> dict of metrics.

    It uses the quick preset's chains on 200 test images; its values are lists over
    replicates where there are several.
    """
    settings = setup.settings.evaluation._replace(**presets.EVALUATION["quick"])
    evaluator = Evaluator(setup, dataset, settings)
    devices = setup.mesh.size
    num = min(CURVE_EXAMPLES, len(dataset.test)) // devices * devices

    def measure(run):
        indices, values = evaluator.images[:num], []
        images = np.asarray(evaluator.test_images(indices))
        for params in run.replicates:
            plan = evaluator.tune(params)
            ais = sharding.fetch(evaluator.ais(params, plan, indices, images))
            values.append(float(np.mean(ais["log_p"])))
        return {"test_log_p": values[0] if len(values) == 1 else values}

    return measure


def _evaluate_one(params, evaluator, folder):
    """All the numbers of one replicate, as nested dicts."""
    plan = _plan(params, evaluator, folder)
    in_chunks, images = evaluator.in_chunks, evaluator.images
    chains = partial(evaluator.ais, params, plan)
    ais = in_chunks(folder / "ais", images, chains, AIS)
    bounds = partial(evaluator.encoder, params, None)
    encoder = in_chunks(folder / "encoder", images, bounds, ENCODER)
    test = {name: _moments(ais[name]) for name in ("log_p", "ess", "accept_prob")}
    test["log_p"]["monte_carlo"] = float(
        np.sqrt(np.sum(np.square(ais["standard_error"], dtype=np.float64)))
        / evaluator.num_examples
    )
    test["log_p"]["per_example"] = [round(float(v), 4) for v in ais["log_p"]]
    for name in ("elbo", "iwae", "iwae_ess", "kl"):
        test[name] = _moments(encoder[name])
    active = np.var(encoder["posterior_mean"], axis=0) > ACTIVE_UNIT_VARIANCE
    test["active_units"] = int(np.sum(active))
    test["num_examples"] = evaluator.num_examples
    of_all_images = partial(test_set_mean.of_all_images, evaluator, params)
    if whole := of_all_images(ais["log_p"], folder / "elbo"):
        test["log_p_all"] = whole
    if evaluator.num_examples < len(evaluator.dataset.test):
        test["images"] = evaluator.images.tolist()
    diagnostics.of_sampling(ais, test, evaluator.settings)
    part = {"test": test}
    if evaluator.settings.num_simulated:
        part["bidirectional"] = _bidirectional(params, evaluator, plan, folder)
    return part


def _bidirectional(params, evaluator, plan, folder):
    """Bounds on simulated data at T / 8, T / 4, T / 2 and T temperatures."""
    settings = evaluator.settings
    num, top = settings.num_simulated, settings.num_temperatures
    ladder = sorted({max(1, top // part) for part in (8, 4, 2, 1)})
    part = {"num_temperatures": ladder, "num_simulated": num}
    for rung in ladder:
        thinned = resample_plan(jax.tree.map(jnp.asarray, plan), rung)
        bounds = evaluator.in_chunks(
            folder / f"bounds_{rung}",
            np.arange(num),
            partial(evaluator.bounds, params, thinned),
            Bounds._fields,
            load=partial(evaluator.simulate, params),
        )
        bounds["gap"] = bounds["upper"] - bounds["lower"]
        for name in ("lower", "upper", "gap"):
            moments = _moments(bounds[name])
            part.setdefault(name, []).append(moments["mean"])
            part.setdefault(f"{name}_error", []).append(moments["standard_error"])
    part["per_example_gap"] = bounds["gap"]
    diagnostics.of_gap(bounds["gap"], settings)
    return part


def _plan(params, evaluator, folder):
    """The frozen plan: read back, or tuned in a pilot and saved."""
    path = folder / "plan.npz"
    saved = read_arrays(path)
    if sharding.any_process(not _is_plan(saved, evaluator.settings.num_temperatures)):
        log.info("Pilot: tuning temperatures and step sizes.")
        tuned = evaluator.tune(params)._asdict()
        del tuned["base"]  # an evaluation's chains start from the encoder's
        saved = sharding.from_first(jax.device_get(tuned))
        if is_first():
            write_arrays(path, saved)
    return Plan(**{name: jnp.asarray(value) for name, value in saved.items()})


def _is_plan(saved, num_temperatures):
    """Whether the arrays read back are a plan of so many temperatures."""
    lengths = {"betas": num_temperatures + 1, "step_sizes": num_temperatures - 1}
    lengths["scale"] = 1  # the path's own
    if saved is None or {k: v.size for k, v in saved.items()} != lengths:
        return False
    betas, step_sizes = saved["betas"], saved["step_sizes"]
    is_ladder = (betas[0], betas[-1]) == (0.0, 1.0) and np.all(np.diff(betas) >= 0)
    return bool(is_ladder and np.all(np.isfinite(step_sizes) & (step_sizes > 0)))


def _folder(run, evaluator):
    """The folder of this very evaluation, named by a digest of what it depends on."""
    settings = evaluator.settings._asdict()
    digests = _digest(run.replicates), evaluator.dataset.digest
    identity = [settings, run.step, *digests, jax.__version__]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = run.folder / "evaluation" / f"step_{run.step}-{digest[:8]}"
    if is_first():
        write_json(folder / "settings.json", settings)
    return folder


def _digest(tree):
    """The sha256 of a pytree of arrays."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        sha.update(np.asarray(leaf).tobytes())
    return sha.hexdigest()


def _moments(values):
    """Mean over examples and its standard error, in float64."""
    values = np.asarray(values, np.float64)
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return {"mean": float(np.mean(values)), "standard_error": float(error)}


def _summary(tests):
    """Test log p(x) over replicates; with one replicate its error is over images."""
    means = [test["log_p"]["mean"] for test in tests]
    moments, over = _moments(means), "over replicates"
    if len(tests) == 1:
        over = "over images"
        moments["standard_error"] = tests[0]["log_p"]["standard_error"]
    return {"test_log_p": {**moments, "error_over": over}}
