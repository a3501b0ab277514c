"""One run from its config to its results, as the programs and the tests call it."""

import math

from experiments.data import load
from experiments.data.dataset import GIVEN, for_likelihood
from experiments.evaluate import evaluate, forecast, pictures, plots
from experiments.run import build, folder, force, parameters, train
from experiments.run.metrics import read_metrics
from experiments.run.run import Run
from experiments.run.settings import replicate_names, resolve, with_covariates
from experiments.system import devices, files
from experiments.system.errors import ConfigError
from experiments.system.progress import log


def train_and_evaluate(
    config, workdir=None, mode="train_and_evaluate", *, dataset=None, model=None
):
    """Trains and evaluates: the real thing, as the tests call it.

    Args:
        config: a ConfigDict of `configs/default.py`'s shape.
        workdir: the run's folder, or None for a new one.
        mode: `train_and_evaluate`, `train` or `evaluate`.
        dataset: a `Dataset` in place of the config's, which says "given".
        model: a `LatentVariableModel`, where `config.model.factory` says "given".

    Returns:
        The contents of results.json, or None where nothing was evaluated.

    Raises:
        InputError: for bad input, before any long work.
        Ended: where training stopped before its end.
    """
    settings = resolve(config)
    build.build_mesh(settings)
    _check_given(settings, dataset, model)
    if dataset is None:
        load.check_available(settings.dataset, settings.data_dir)
    workdir = files.user_path(workdir or folder.default_workdir(settings))
    with files.prepared(workdir):
        if mode == "evaluate":
            run, dataset = open_run(settings, workdir, dataset, model)
            rows = read_metrics(workdir / "metrics.jsonl")
            forecast.tell_before(settings.evaluation, len(dataset.test), rows)
        else:
            setup, dataset = open_training(settings, workdir, dataset, model)
            with folder.alone(workdir):
                log.info("Working directory: %s", workdir)
                run = train.train(
                    setup,
                    dataset,
                    workdir,
                    evaluate.curve(setup, dataset),
                    pictures.in_training(setup, dataset),
                    forecast.teller(
                        None if mode == "train" else settings.evaluation,
                        len(dataset.test),
                        setup.num_gradients(setup.num_steps),
                    ),
                )
                _draw_learning_curves(settings, workdir)
        if mode == "train":
            _say_where(workdir)
            return None
        results = evaluate.evaluate(run, dataset)
        _draw_learning_curves(settings, workdir, results)
    if devices.is_first():
        print(evaluate.report(results))
        print(f"Results: {workdir / 'results.json'}; plots: {workdir / 'plots'}")
    return results


def open_training(settings, workdir, dataset=None, model=None):
    """(set-up, data set) of a training, once its folder holds it and no other."""
    dataset = _loaded(settings, dataset)
    settings = with_covariates(settings, dataset.num_covariates)
    settled = force.settle(settings, workdir)
    setup = build.build_training(settled, dataset, model)  # refuses what cannot run
    if settings.init_from and not (workdir / "config.json").exists():
        parameters.first(setup)  # refuses what is no run
    folder.claim(workdir, settled, dataset)
    force.say(settings, settled)
    return setup, dataset


def open_run(settings, workdir, dataset=None, model=None):
    """(`Run`, data set) at the newest checkpoint of a folder that holds this run."""
    workdir, dataset = files.user_path(workdir), _loaded(settings, dataset)
    settings = with_covariates(settings, dataset.num_covariates)
    shape, levels = dataset.image_shape, dataset.levels
    folder.claim(workdir, settings, dataset, write=False)
    settled = force.settle(settings, workdir)
    if model is None:
        model = build.build_model(settled, shape)
    mesh = build.build_mesh(settled)
    step, replicates = parameters.read(workdir, model, mesh)
    force.say(settings, settled)
    run = Run(settled, model, replicates, mesh, workdir, shape, levels, step)
    return run, dataset


def _loaded(settings, dataset):
    """The settings' data set, or the one given, of the likelihood's values."""
    if dataset is None:
        dataset = load.load(settings.dataset, settings.data_dir)
    if settings.keep_best:
        dataset = dataset.with_valid()
    model = settings.model
    return for_likelihood(dataset, model["likelihood"], model["missing"])


def _say_where(workdir):
    if devices.is_first():
        print(
            f"Trained: {workdir}. To evaluate it: python -m experiments.main "
            f"--mode=evaluate --workdir={workdir}"
        )


@plots.optional()
def _draw_learning_curves(settings, workdir, results=None):
    """Draws metrics.jsonl, and at its end test log p(x) where it was evaluated."""
    rows = read_metrics(workdir / "metrics.jsonl") if devices.is_first() else []
    if not rows:  # a finished run's file may be gone
        return
    if results is not None and results["steps"] == rows[-1]["step"]:
        parts = [part["test"]["log_p"]["mean"] for part in results["replicates"]]
        rows[-1] |= {"test_log_p": parts if len(parts) > 1 else parts[0]}
    plots.learning_curves(
        rows,
        workdir / "plots" / "learning_curves.png",
        title=f"{settings.dataset}, {folder.method(settings)}: training",
        replicates=replicate_names(settings),
    )


def _check_given(settings, dataset, model):
    """Refuses an argument that the config does not ask for, and one that is missing."""
    for name, said, given in (
        ("dataset", settings.dataset, dataset),
        ("model.factory", settings.factory, model),
    ):
        if (said == GIVEN) != (given is not None):
            short = name.partition(".")[0]
            raise ConfigError(
                f"{name}={said!r}: config.{name}={GIVEN!r} goes together with "
                f"train_and_evaluate(config, {short}=...)"
            )


def use_cores(configs):
    """Makes each core a device where there is no accelerator, for these configs."""
    runs = [resolve(config) for config in configs]
    devices.use_cores(
        lambda cores: all(math.prod(build.mesh_shape(r, cores)) == cores for r in runs)
    )
    devices.require_device()
