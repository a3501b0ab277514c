"""Evaluation of a trained model: log p(x) with errors, and the proof beside it."""

import hashlib
import json
import time
from functools import partial

import jax
import numpy as np

from ais_jax.evidence.row_estimates import as_result, measured_gap
from configs import presets
from experiments.data.dataset import Dataset
from experiments.evaluate import diagnostics, forecast, pictures
from experiments.evaluate.evaluator import ENCODER, Evaluator
from experiments.run import build
from experiments.run.folder import VERSION, provenance
from experiments.run.metrics import last_row
from experiments.run.run import Run
from experiments.run.settings import replicate_names
from experiments.system.devices import is_first
from experiments.system.files import write_json
from experiments.system.progress import Progress

ACTIVE_UNIT_VARIANCE = 0.01
CURVE_EXAMPLES = 200  # test images of a learning curve
CURVE_TEMPERATURES = 64


def evaluate(run: Run, dataset: Dataset):
    """Evaluates every replicate, writes plots and results.json and returns the latter.

    Finished chunks are kept in the run's `evaluation`, so that a stopped evaluation
    goes on where it was. Its results are kept there too, as `evaluation.json`;
    results.json is a copy of the newest.
    """
    started = time.monotonic()
    evaluator = Evaluator(run, dataset, run.settings.evaluation)
    diagnostics.of_few_images(evaluator.settings, dataset)
    folder, num = _folder(run, evaluator), len(run.replicates)
    names = replicate_names(run.settings)
    parts = []
    with Progress("evaluation") as progress:
        for r, params in enumerate(run.replicates):
            place = folder if num == 1 else folder / f"replicate_{r}"
            name = names[r] if names else f"replicate {r}" if num > 1 else ""
            parts.append(
                _evaluate_one(params, evaluator, place, progress, name, num - r - 1)
            )
    for part, name in zip(parts, names):
        part["name"] = name
    results = {
        "version": VERSION,
        **_summary(parts),
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
        best = results.get("best", 0)
        pictures.draw(run.replicate(best), evaluator, parts[best])
    return results


def training_cost(run, dataset):
    """What the training of a run cost: the numbers of results.json, by their names.

    Gradient evaluations are passes forward and backward through log p(x, z), for one
    replicate; seconds are summed over resumes.
    """
    settings, num_train = run.settings, len(dataset.train)
    return {
        "epochs": run.step / (num_train // settings.batch_size),
        "steps": run.step,
        "gradient_evaluations": build.gradient_evaluations(
            settings, run.model, num_train, run.step
        ),
        "training_seconds": last_row(run.folder).get("seconds", 0.0),
    }


def report(results):
    """The results as lines of text, of each replicate where they are not seeds."""
    parts = results["replicates"]
    samples = results["config"]["evaluation"]["iwae_samples"]
    if "best" not in results:
        return _report(parts[0], samples, results["test_log_p"])
    return "\n".join(
        f"{part['name']}{' (best)' * (r == results['best'])}: "
        + _report(part, samples, part["test"]["log_p"])
        for r, part in enumerate(parts)
    )


def _report(part, iwae_samples, log_p):
    test, gap = part["test"], part.get("bidirectional")
    bounds = {
        "ELBO": test["elbo"]["mean"],
        f"IWAE-{iwae_samples}": test["iwae"]["mean"],
        "AIS": test["log_p"]["mean"],
    }
    is_ordered = sorted(bounds.values()) == list(bounds.values())
    order = (" < " if is_ordered else ", ").join(
        f"{name} {value:.2f}" for name, value in bounds.items()
    )
    temperatures, fixed = test["num_temperatures"], test["gradient_evaluations_fixed"]
    lines = [
        f"test log p(x) = {log_p['mean']:.2f} "
        f"{_error(log_p['standard_error'], 'one image', 2)} nats "
        f"({log_p.get('error_over', 'over images')}; {test['num_examples']} images), "
        f"Monte Carlo +- {test['log_p']['monte_carlo']:.3f}, "
        + (
            f"gap {gap['gap']:.3f} {_error(gap['gap_error'], 'one pair')} (median "
            f"{gap['median']:.3f}; {gap['num_large']} of {gap['num_simulated']} pairs "
            "make half of it), "
            if gap
            else ""
        )
        + f"{test['gradient_evaluations']:.2g} gradient evaluations"
        + (f" ({fixed:.2g} at the largest T for all)" if len(temperatures) > 1 else ""),
        f"  {order}; KL {test['kl']['mean']:.2f}; {test['active_units']} active units; "
        f"T = {' to '.join(map(str, temperatures))}",
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


def _evaluate_one(params, evaluator, folder, progress, name, num_after):
    """All the numbers of one replicate, as nested dicts.

    So many others come after it, which are expected to cost as much.
    """
    settings, num = evaluator.settings, evaluator.num_examples

    def advance(stage, amount):
        progress.advance(f"{name}, {stage}" if name else stage, amount)

    search = evaluator.search(params, folder, advance)
    per_image = forecast.encoder_moves(settings)

    def expect(found):
        later = num * per_image
        if "pairs" not in found.stage:
            later += forecast.pair_moves(settings, search.rule)
        whole = found.expected_moves + later
        progress.expect(whole - found.num_moves + num_after * whole)

    search.progress = expect
    estimate = search.estimate("test", num, evaluator.rows(params))
    spent, gap = evaluator.num_gradients(search), None
    if settings.num_simulated != 0:
        load = partial(evaluator.pairs, params)
        gap = measured_gap(search, load, estimate, settings.num_simulated)
    encoder = evaluator.in_chunks(
        folder / "encoder",
        evaluator.images,
        partial(evaluator.encoder, params, None),
        ENCODER,
        load=lambda indices: (evaluator.test_images(indices),),
        tell=lambda n: advance("encoder", n * per_image),
    )
    ais = as_result(estimate, spent, settings.num_leapfrog, gap)
    test = {
        **_of_chains(ais),
        **{name: _moments(encoder[name]) for name in ("elbo", "iwae", "iwae_ess")},
        "kl": _moments(encoder["kl"]),
        "active_units": _active_units(encoder["posterior_mean"]),
        "num_examples": num,
    }
    test["iwae"]["per_example"] = _rounded(encoder["iwae"])
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
        "per_example": _rounded(ais.log_p),
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


def _rounded(values):
    return [round(float(value), 4) for value in values]


def _active_units(posterior_mean):
    return int(np.sum(np.var(posterior_mean, axis=0) > ACTIVE_UNIT_VARIANCE))


def _folder(run, evaluator):
    """The folder of this very evaluation, named by a digest of what it depends on.

    The test images' chains do not depend on the number of simulated pairs.
    """
    settings = evaluator.settings._asdict()
    digests = _digest(run.replicates), evaluator.dataset.digest
    chosen = settings | {"num_simulated": None}
    identity = [chosen, run.step, *digests, jax.__version__]
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


def _summary(parts):
    """Test log p(x) over replicates that are seeds, or of the best of different ones.

    Of a lone replicate the error is over images.
    """
    means = [part["test"]["log_p"]["mean"] for part in parts]
    best = int(np.argmax(means))
    if len(parts) > 1 and "name" not in parts[0]:
        return {"test_log_p": _moments(means) | {"error_over": "over replicates"}}
    log_p = parts[best]["test"]["log_p"]
    moments = {name: log_p[name] for name in ("mean", "standard_error")}
    of_best = {"best": best} if len(parts) > 1 else {}
    return {"test_log_p": moments | {"error_over": "over images"}, **of_best}
