"""Evaluation of a trained model: log p(x) with errors, and the proof beside it."""

import hashlib
import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import evaluation
from ais_jax.training import example_keys, map_examples
from experiments import builders, plots, runs
from experiments.metrics import write_json
from experiments.progress import Progress, log

ACTIVE_UNIT_VARIANCE = 0.01
KL_SAMPLES = 100


class Evaluator:
    """The compiled functions of one evaluation, for every replicate and chunk.

    Every example has its own keys, by its index, so that its numbers depend neither on
    the chunk nor on which other examples are evaluated.

    Args:
        config: a checked ConfigDict.
        model: a `LatentVariableModel`.
        dataset: a `datasets.Dataset`.
        settings: of `builders.evaluation_settings`.
    """

    def __init__(self, config, model, dataset, settings):
        self.config, self.model = config, model
        self.dataset, self.settings = dataset, settings
        names = ("pixels", "pilot", "ais", "iwae", "simulate", "bounds", "kl")
        keys = jax.random.split(jax.random.key(settings["seed"]), len(names))
        self.keys = dict(zip(names, keys))
        self.path = builders.build_path_fn(model, settings)
        self.transition = builders.build_transition(settings)
        self.num_examples = min(
            settings["num_examples"] or len(dataset.test), len(dataset.test)
        )
        self.ais = self._jit(self._ais)
        self.encoder = self._jit(self._encoder)
        self.bounds = self._jit(self._bounds)
        self.simulate = jax.jit(
            lambda theta, keys: jax.vmap(lambda key: model.simulate(key, theta))(keys)
        )

    def _jit(self, function):
        """Compiles a function of one example for a chunk: (params, args, indices)."""
        block = builders.block_size(self.config, self.settings["num_chains"])

        def chunk(params, shared, indices, *examples):
            one = lambda index, *xs: function(params, shared, index, *xs)
            return map_examples(one, indices, *examples, block_size=block)

        return jax.jit(chunk)

    def _ais(self, params, plan, index, x):
        result = evaluation.log_normalizer(
            jax.random.fold_in(self.keys["ais"], index),
            self.path(*params, x),
            plan,
            self.settings["num_chains"],
            self.transition,
        )
        return {
            "log_p": result.log_z,
            "standard_error": result.standard_error,
            "ess": result.ess,
            "accept_prob": jnp.mean(result.accept_prob),
        }

    def _encoder(self, params, _, index, x):
        theta, phi = params
        q, p = self.model.proposal(phi, x), self.model.prior(theta)
        path = builders.STARTS["encoder"](self.model, theta, phi, x)
        key = jax.random.fold_in(self.keys["iwae"], index)
        log_w = evaluation.importance_log_weights(
            key, path, self.settings["iwae_samples"]
        )
        z = jax.vmap(q.sample)(
            example_keys(jax.random.fold_in(self.keys["kl"], index), KL_SAMPLES)
        )
        return {
            "elbo": jnp.mean(log_w),
            "iwae": evaluation.log_mean_exp(log_w),
            "iwae_ess": evaluation.effective_sample_size(log_w),
            "kl": jnp.mean(jax.vmap(q.log_prob)(z) - jax.vmap(p.log_prob)(z)),
            "posterior_mean": q.mean,
        }

    def _bounds(self, params, plan, index, x, z):
        bounds = evaluation.bidirectional_bounds(
            jax.random.fold_in(self.keys["bounds"], index),
            self.path(*params, x),
            z,
            plan,
            self.settings["num_chains"],
            self.transition,
        )
        return bounds._asdict()

    def test_images(self, indices):
        """Test images f32[N, X], binarized once and for all by seed and index."""
        return self._binarize(self.dataset.test, indices)

    def _binarize(self, images, indices):
        x = jnp.asarray(images[indices])
        if self.dataset.is_binary:
            return x
        keys = jax.vmap(jax.random.fold_in, (None, 0))(self.keys["pixels"], indices)
        draw = lambda key, p: jax.random.bernoulli(key, p).astype(p.dtype)
        return jax.vmap(draw)(keys, x)

    def tune(self, params):
        """The pilot: a `Plan`, from images that are not scored."""
        images = self.dataset.train
        if self.dataset.valid is not None:
            images = self.dataset.valid
        pilot = np.arange(min(self.settings["num_pilot"], len(images)))
        first, _, _ = builders.STEP_SIZES[self.settings["preconditioner"]]
        plan = jax.jit(
            lambda params, xs: evaluation.tune(
                self.keys["pilot"],
                lambda x: self.path(*params, x),
                xs,
                num_temperatures=self.settings["num_temperatures"],
                schedule=self.settings["schedule"],
                transition=self.transition,
                target=self.settings["target"],
                first_step_size=first,
            )
        )
        return plan(params, self._binarize(images, pilot))


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
    for r in range(config.num_replicates):
        params = parameters(trained.state, r)
        parts.append(_evaluate_one(evaluator, params, folder / f"replicate_{r}"))
    results = {
        **_summary([part["test"] for part in parts]),
        "replicates": parts,
        "epochs": config.num_epochs,
        "steps": trained.step,
        "gradient_evaluations": trained.gradient_evaluations,
        "training_seconds": trained.seconds,
        "evaluation_seconds": time.monotonic() - started,
        "evaluation": settings,
        "config": runs.plain(config),
        "data": {"digest": dataset.digest, "source": dataset.source},
        **runs.provenance(),
    }
    write_json(Path(workdir) / "results.json", results)
    _plot(evaluator, parts[0], parameters(trained.state, 0), Path(workdir) / "plots")
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
    settings["num_examples"] = min(200, len(dataset.test))
    evaluator = Evaluator(config, model, dataset, settings)
    indices = np.arange(settings["num_examples"])

    def measure(state):
        values = []
        for r in range(config.num_replicates):
            params = parameters(state, r)
            plan = evaluator.tune(params)
            images = evaluator.test_images(indices)
            values.append(
                float(np.mean(evaluator.ais(params, plan, indices, images)["log_p"]))
            )
        return {"test_log_p": values[0] if len(values) == 1 else values}

    return measure


def parameters(state, replicate):
    """(theta, phi) of one replicate of a `TrainState`."""
    pick = lambda tree: jax.tree.map(lambda a: a[replicate], tree)
    return pick(state.generative.params), pick(state.inference.params)


def _evaluate_one(evaluator, params, folder):
    """All the numbers of one replicate, as nested dicts."""
    plan = _plan(evaluator, params, folder)
    ais = _chunks(
        evaluator,
        folder / "ais",
        evaluator.num_examples,
        evaluator.test_images,
        lambda indices, x: evaluator.ais(params, plan, indices, x),
    )
    encoder = _chunks(
        evaluator,
        folder / "encoder",
        evaluator.num_examples,
        evaluator.test_images,
        lambda indices, x: evaluator.encoder(params, None, indices, x),
    )
    test = {name: _moments(ais[name]) for name in ("log_p", "ess", "accept_prob")}
    test["log_p"]["monte_carlo"] = float(
        np.sqrt(np.sum(np.square(ais["standard_error"], dtype=np.float64)))
        / evaluator.num_examples
    )
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
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
        return evaluator.simulate(params[0], keys)

    for rung in ladder:
        thinned = evaluation.resample_plan(plan, rung)
        bounds = _chunks(
            evaluator,
            folder / f"bounds_{rung}",
            num,
            pairs,
            lambda indices, x, z, plan=thinned: evaluator.bounds(
                params, plan, indices, x, z
            ),
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


def _chunks(evaluator, folder, num, examples, function):
    """Runs a function over examples chunk by chunk; finished chunks are read back."""
    size = min(evaluator.settings["chunk_size"], num)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    name = f"{folder.parent.name} {folder.name}"
    with Progress(num, 0, "example") as progress:
        for start in range(0, num, size):
            path = folder / f"{start:06d}-{min(start + size, num):06d}.npz"
            part = _read(path)
            if part is None:
                indices = np.minimum(np.arange(start, start + size), num - 1)
                inputs = examples(indices)
                inputs = inputs if isinstance(inputs, tuple) else (inputs,)
                part = jax.device_get(function(indices, *inputs))
                part = {k: v[: num - start] for k, v in part.items()}
                _write(path, part)
            parts.append(part)
            progress.update(min(start + size, num), name)
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def _plan(evaluator, params, folder):
    """The frozen plan: read back, or tuned in a pilot and saved."""
    path = folder / "plan.npz"
    saved = _read(path)
    if saved is None:
        log.info("Pilot: tuning temperatures and step sizes.")
        folder.mkdir(parents=True, exist_ok=True)
        saved = jax.device_get(evaluator.tune(params)._asdict())
        _write(path, saved)
    return evaluation.Plan(**{k: jnp.asarray(v) for k, v in saved.items()})


def _folder(config, settings, dataset, trained, workdir):
    """The folder of this very evaluation, named by a digest of what it depends on."""
    identity = [settings, trained.step, dataset.digest, jax.__version__]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = Path(workdir) / "evaluation" / f"step_{trained.step}-{digest[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "settings.json", settings)
    return folder


def _write(path, arrays):
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _read(path):
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


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
    keys = example_keys(evaluator.keys["simulate"], 100)
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
