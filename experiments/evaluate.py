"""Evaluation of a trained model: log p(x) with errors, and the proof beside it."""

import hashlib
import json
import time
from pathlib import Path

import jax
import numpy as np

from ais_jax import sharding, tuning
from ais_jax.batching import chain_keys, example_keys
from experiments import builders, plots, runs
from experiments.chunks import read_arrays, run_chunks, write_arrays
from experiments.evaluator import Evaluator
from experiments.metrics import write_json
from experiments.progress import log

ACTIVE_UNIT_VARIANCE = 0.01


def evaluate(config, model, dataset, trained, workdir):
    """Evaluates every replicate and writes results.json and plots.

    Finished chunks are kept in `workdir/evaluation`, so that a stopped evaluation goes
    on where it was.

    Args:
        config: a checked ConfigDict.
        model: a `LatentVariableModel`.
        dataset: a `datasets.Dataset`.
        trained: a `train.Trained`.
        workdir: the run's folder.

    Returns:
        The contents of results.json.
    """
    started = time.monotonic()
    settings = builders.evaluation_settings(config)
    evaluator = Evaluator(config, model, dataset, settings)
    folder = _folder(config, settings, dataset, trained, workdir)
    parts = []
    state = sharding.fetch(trained.state)
    for r in range(config.num_replicates):
        params = parameters(state, r)
        parts.append(_evaluate_one(evaluator, params, folder / f"replicate_{r}"))
    results = {
        **_summary([part["test"] for part in parts]),
        "replicates": parts,
        "epochs": trained.epochs,
        "steps": trained.step,
        "gradient_evaluations": trained.gradient_evaluations,
        "training_seconds": trained.seconds,
        "evaluation_seconds": time.monotonic() - started,
        "evaluation": settings,
        "config": runs.plain(config),
        "data": {"digest": dataset.digest, "source": dataset.source},
        **runs.provenance(),
    }
    if runs.is_first():
        write_json(Path(workdir) / "results.json", results)
        _plot(evaluator, parts[0], parameters(state, 0), Path(workdir) / "plots")
    return results


def report(results):
    """The results as lines of text."""
    test = results["replicates"][0]["test"]
    gap = results["replicates"][0].get("bidirectional")
    log_p = results["test_log_p"]
    settings = results["evaluation"]
    lines = [
        f"test log p(x) = {log_p['mean']:.2f} +- {log_p['standard_error']:.2f} nats "
        f"({log_p['error_over']}; Monte Carlo +- {test['log_p']['monte_carlo']:.3f}; "
        f"{test['num_examples']} images)",
        f"  ELBO {test['elbo']['mean']:.2f} < IWAE-{settings['iwae_samples']} "
        f"{test['iwae']['mean']:.2f} < AIS {test['log_p']['mean']:.2f}; "
        f"KL {test['kl']['mean']:.2f}; {test['active_units']} active units; "
        f"ESS {test['ess']['mean']:.1f} of {settings['num_chains']} chains",
    ]
    if gap:
        lines.append(
            f"  bidirectional gap on simulated data {gap['gap'][-1]:.3f} +- "
            f"{gap['gap_error'][-1]:.3f} nats at T = {gap['num_temperatures'][-1]}"
        )
    return "\n".join(lines)


def curve(config, model, dataset):
    """A quick test log p(x) for learning curves: state -> dict of metrics.

    It uses the quick preset's chains on 200 test images.

    Args:
        config: a checked ConfigDict.
        model: a `LatentVariableModel`.
        dataset: a `datasets.Dataset`.

    Returns:
        The function; its values are lists over replicates where there are several.
    """
    settings = dict(builders.evaluation_settings(config), **builders.PRESETS["quick"])
    evaluator = Evaluator(config, model, dataset, settings)
    devices = evaluator.mesh.size
    indices = np.arange(min(200, len(dataset.test)) // devices * devices)

    def measure(state):
        values, state = [], sharding.fetch(state)
        for r in range(config.num_replicates):
            params = parameters(state, r)
            plan = evaluator.tune(params)
            images = np.asarray(evaluator.test_images(indices))
            found = sharding.fetch(evaluator.ais(params, plan, indices, images))
            values.append(float(np.mean(found["log_p"])))
        return {"test_log_p": values[0] if len(values) == 1 else values}

    return measure


def parameters(state, replicate):
    """(theta, phi) of one replicate of a `TrainState` on the host."""
    pick = lambda tree: jax.tree.map(lambda a: a[replicate], tree)
    return pick(state.generative.params), pick(state.inference.params)


def _evaluate_one(evaluator, params, folder):
    """All the numbers of one replicate, as nested dicts."""
    plan = _plan(evaluator, params, folder)
    on_test = lambda name, function: run_chunks(
        folder / name,
        evaluator.num_examples,
        evaluator.settings["chunk_size"],
        evaluator.test_images,
        function,
        evaluator.mesh.size,
    )
    ais = on_test("ais", lambda i, x: evaluator.ais(params, plan, i, x))
    encoder = on_test("encoder", lambda i, x: evaluator.encoder(params, None, i, x))
    test = {name: _moments(ais[name]) for name in ("log_p", "ess", "accept_prob")}
    test["log_p"]["monte_carlo"] = float(
        np.sqrt(np.sum(np.square(ais["standard_error"], dtype=np.float64)))
        / evaluator.num_examples
    )
    test["log_p"]["per_example"] = [round(float(v), 4) for v in ais["log_p"]]
    test |= {
        name: _moments(encoder[name]) for name in ("elbo", "iwae", "iwae_ess", "kl")
    }
    active = np.var(encoder["posterior_mean"], axis=0) > ACTIVE_UNIT_VARIANCE
    test["active_units"] = int(np.sum(active))
    test["num_examples"] = evaluator.num_examples
    part = {"test": test}
    if evaluator.settings["num_simulated"]:
        part["bidirectional"] = _bidirectional(evaluator, params, plan, folder)
    return part


def _bidirectional(evaluator, params, plan, folder):
    """Bounds on simulated data at T / 8, T / 4, T / 2 and T temperatures."""
    num = evaluator.settings["num_simulated"]
    top = evaluator.settings["num_temperatures"]
    ladder = sorted({max(1, top // part) for part in (8, 4, 2, 1)})
    found = {"num_temperatures": ladder, "num_simulated": num}
    key = evaluator.keys["simulate"]

    def pairs(indices):
        return evaluator.simulate(params[0], example_keys(key, indices))

    for rung in ladder:
        thinned = tuning.resample_plan(plan, rung)
        bounds = run_chunks(
            folder / f"bounds_{rung}",
            num,
            evaluator.settings["chunk_size"],
            pairs,
            lambda i, x, z, plan=thinned: evaluator.bounds(params, plan, i, x, z),
            evaluator.mesh.size,
        )
        bounds["gap"] = bounds["upper"] - bounds["lower"]
        for name in ("lower", "upper", "gap"):
            moments = _moments(bounds[name])
            found.setdefault(name, []).append(moments["mean"])
            found.setdefault(f"{name}_error", []).append(moments["standard_error"])
    found["per_example_gap"] = bounds["gap"]
    threshold = evaluator.settings["gap_threshold"]
    if found["gap"][-1] > threshold:
        log.warning(
            "The bidirectional gap, %.3f nats, is above evaluation.gap_threshold=%g: "
            "log p(x) may be off by as much. Raise evaluation.num_temperatures=%d.",
            found["gap"][-1],
            threshold,
            top,
        )
    return found


def _plan(evaluator, params, folder):
    """The frozen plan: read back, or tuned in a pilot and saved."""
    path = folder / "plan.npz"
    saved = read_arrays(path)
    if sharding.any_process(saved is None):
        log.info("Pilot: tuning temperatures and step sizes.")
        saved = jax.device_get(evaluator.tune(params)._asdict())
        saved = sharding.from_first(saved)
        if runs.is_first():
            write_arrays(path, saved)
    return tuning.Plan(**saved)


def _folder(config, settings, dataset, trained, workdir):
    """The folder of this very evaluation, named by a digest of what it depends on."""
    identity = [settings, trained.step, dataset.digest, jax.__version__]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = Path(workdir) / "evaluation" / f"step_{trained.step}-{digest[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    if runs.is_first():
        write_json(folder / "settings.json", settings)
    return folder


def _moments(values):
    """Mean over examples and its standard error, in float64."""
    values = np.asarray(values, np.float64)
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return {"mean": float(np.mean(values)), "standard_error": float(error)}


def _summary(tests):
    """Test log p(x) over replicates; with one replicate its error is over images."""
    means = np.array([test["log_p"]["mean"] for test in tests])
    if len(tests) > 1:
        error, over = np.std(means, ddof=1) / np.sqrt(len(means)), "over replicates"
    else:
        error, over = tests[0]["log_p"]["standard_error"], "over images"
    return {
        "test_log_p": {
            "mean": float(np.mean(means)),
            "standard_error": float(error),
            "error_over": over,
        }
    }


def _plot(evaluator, part, params, folder):
    """Samples, reconstructions and bounds, of the first replicate."""
    shape = evaluator.dataset.image_shape
    theta, phi = params
    model = evaluator.model
    keys = chain_keys(evaluator.keys["simulate"], 100)
    z = evaluator.simulate(theta, keys)[1]
    decode = jax.jit(jax.vmap(lambda z: model.decode(theta, z)))
    samples = np.asarray(decode(z)).reshape(-1, *shape)
    plots.image_grid(samples, folder / "samples.png", columns=10)
    images = evaluator.test_images(np.arange(min(30, evaluator.num_examples)))
    mean = jax.jit(jax.vmap(lambda x: model.decode(theta, model.proposal(phi, x).mean)))
    plots.reconstructions(
        np.asarray(images).reshape(-1, *shape),
        np.asarray(mean(images)).reshape(-1, *shape),
        folder / "reconstructions.png",
    )
    gap = part.get("bidirectional")
    if gap:
        plots.bounds(
            gap["num_temperatures"],
            gap["lower"],
            gap["upper"],
            gap["lower_error"],
            gap["upper_error"],
            folder / "bounds.png",
        )
