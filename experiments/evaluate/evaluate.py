"""Evaluation of a trained model: log p(x) with errors, and the proof beside it."""

import hashlib
import json
import time
from functools import partial

import jax
import numpy as np

from ais_jax.evidence.row_estimates import as_result, gap_of
from configs import presets
from experiments.data.dataset import Dataset
from experiments.evaluate import diagnostics, pictures
from experiments.evaluate.evaluator import ENCODER, Evaluator
from experiments.run import build
from experiments.run.folder import VERSION, provenance
from experiments.run.metrics import last_row
from experiments.run.run import Run
from experiments.system.devices import is_first
from experiments.system.files import write_json
from experiments.system.progress import Stages

ACTIVE_UNIT_VARIANCE = 0.01
CURVE_EXAMPLES = 200  # test images of a learning curve
CURVE_TEMPERATURES = 64
ENCODER_COST = 0.1  # of a sample, in moves of a chain


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
    parts = []
    for r, params in enumerate(run.replicates):
        name = (
            "evaluation" if len(run.replicates) == 1 else f"evaluation, replicate {r}"
        )
        with Stages(name) as stages:
            place = folder / f"replicate_{r}"
            parts.append(_evaluate_one(params, evaluator, place, stages))
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
    lines = [
        f"test log p(x) = {log_p['mean']:.2f} "
        f"{_error(log_p['standard_error'], 'one image', 2)} nats "
        f"({log_p['error_over']}; {test['num_examples']} images), Monte Carlo "
        f"+- {test['log_p']['monte_carlo']:.3f}, "
        + (
            f"gap {gap['gap']:.3f} {_error(gap['gap_error'], 'one pair')} (median "
            f"{gap['median']:.3f}; {gap['num_large']} of {gap['num_simulated']} pairs "
            "make half of it), "
            if gap
            else ""
        )
        + f"{test['gradient_evaluations']:.2g} gradient evaluations "
        f"({test['gradient_evaluations_fixed']:.2g} at the largest T for all)",
        f"  {order}; KL {test['kl']['mean']:.2f}; {test['active_units']} active units; "
        f"T = {' to '.join(str(t) for t in test['num_temperatures'])}",
    ]
    return "\n".join(lines)


def _error(value, lone, digits=3):
    """A standard error as text; of a lone sample there is none."""
    return f"({lone}: no error)" if np.isnan(value) else f"+- {value:.{digits}f}"


def curve(setup, dataset):
    """A quick test log p(x) for learning curves: `Run` -> dict of metrics.

    It uses few temperatures and 200 test images; its values are lists over replicates
    where there are several.
    """
    few = presets.EVALUATION["default"] | {"num_temperatures": CURVE_TEMPERATURES}
    settings = setup.settings.evaluation._replace(**few)
    evaluator = Evaluator(setup, dataset, settings)
    num = min(CURVE_EXAMPLES, evaluator.num_examples)

    def measure(run):
        values = []
        for params in run.replicates:
            search = evaluator.search(params)
            estimate = search.estimate("test", num, evaluator.rows(params))
            values.append(float(np.mean(estimate.moments.log_p)))
        return {"test_log_p": values[0] if len(values) == 1 else values}

    return measure


def _evaluate_one(params, evaluator, folder, stages):
    """All the numbers of one replicate, as nested dicts."""
    settings, num = evaluator.settings, evaluator.num_examples
    search = evaluator.search(params, folder, stages.advance)
    per_chain = ENCODER_COST * settings.iwae_samples

    def expect(progress):
        left = progress.expected_moves - progress.num_moves
        stages.expect(left + num * per_chain)

    search.progress = expect
    estimate = search.estimate("test", num, evaluator.rows(params))
    spent, gap = evaluator.num_gradients(search), None
    if pairs := settings.num_simulated:
        load = partial(evaluator.pairs, params)
        gap = gap_of(search.estimate("pairs", pairs, load, is_paired=True))
    encoder = evaluator.in_chunks(
        folder / "encoder",
        evaluator.images,
        partial(evaluator.encoder, params, None),
        ENCODER,
        load=lambda indices: (evaluator.test_images(indices),),
        tell=lambda n: stages.advance("encoder", n * per_chain),
    )
    ais = as_result(estimate, spent, settings.num_leapfrog, gap)
    test = {
        **_of_chains(ais),
        **{name: _moments(encoder[name]) for name in ("elbo", "iwae", "iwae_ess")},
        "kl": _moments(encoder["kl"]),
        "active_units": _active_units(encoder["posterior_mean"]),
        "num_examples": num,
    }
    if num < len(evaluator.dataset.test):
        test["images"] = evaluator.images.tolist()
    diagnostics.of_sampling(ais, test, settings)
    part = {"test": test}
    if gap is not None:
        part["bidirectional"] = _of_pairs(gap)
        part["bidirectional"]["gradient_evaluations"] = (
            evaluator.num_gradients(search) - spent
        )
        diagnostics.of_gap(gap, settings)
    return part


def _of_chains(ais):
    """What a `LogLikelihood` says, as nested dicts."""
    found = {name: _moments(getattr(ais, name)) for name in ("log_p", "accept_prob")}
    found["ess"] = _moments(ais.ess / ais.num_chains)
    found["log_p"] |= {
        "monte_carlo": ais.monte_carlo,
        "bias": ais.bias,
        "per_example": [round(float(v), 4) for v in ais.log_p],
    }
    temperatures = sorted(
        {int(ais.num_temperatures.min())} | {int(ais.num_temperatures.max())}
    )
    return found | {
        "num_temperatures": temperatures,
        "num_hard": int(np.sum(ais.start > 0)),
        "wanted_error": ais.wanted_error,
        "gradient_evaluations": ais.num_gradients,
        "gradient_evaluations_fixed": ais.num_gradients_fixed,
    }


def _of_pairs(gap):
    """What a `Gap` says."""
    return {
        "gap": gap.mean,
        "gap_error": gap.standard_error,
        "median": gap.median,
        "num_large": gap.num_large,
        "lower": gap.lower,
        "num_simulated": len(gap.per_pair),
        "per_example_gap": gap.per_pair,
    }


def _active_units(posterior_mean):
    return int(np.sum(np.var(posterior_mean, axis=0) > ACTIVE_UNIT_VARIANCE))


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
