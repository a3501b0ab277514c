"""Trains and evaluates a deep latent-variable model, as one config says.

python -m experiments.main --config=configs/digits.py
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments import cli
from experiments.progress import log

MODES = ("train_and_evaluate", "train", "evaluate")
_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/digits.py", "Config file; after a colon, the estimator."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; a run in it is resumed. Default: a new one."
)
_MODE = flags.DEFINE_enum("mode", "train_and_evaluate", MODES, "What to do.")
_CACHE = flags.DEFINE_string(
    "compile_cache",
    "~/.cache/ais_jax/xla",
    "Folder of JAX's persistent compilation cache; empty for none.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "Many processes: 'auto', or host:port of the first one."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With host:port.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "With host:port; from 0.")


def main():
    """Runs the mode that the flags ask for."""
    cli.start_processes(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    run(_MODE.value, _chosen_config(), _WORKDIR.value, _CACHE.value)


def run(mode, config, workdir=None, compile_cache=None):
    """Trains and evaluates: the real thing, as the tests call it.

    Args:
        mode: one of `MODES`.
        config: a ConfigDict of `configs/default.py`'s shape.
        workdir: the run's folder, or None for a new one.
        compile_cache: folder of JAX's persistent compilation cache, or None.

    Returns:
        The contents of results.json, or None where nothing was evaluated.

    Raises:
        cli.InputError: for bad input, before any long work.
        cli.Ended: where training stopped before its end.
    """
    from experiments import builders, datasets, runs

    builders.check(config)
    datasets.check_available(config.dataset, config.data_dir)
    workdir = Path(workdir or runs.default_workdir(config))
    runs.prepare(workdir)
    log.info("Working directory: %s", workdir)
    cli.use_compile_cache(compile_cache)
    dataset = datasets.load(config.dataset, config.data_dir)
    setup = builders.build_training(config, dataset)
    runs.claim(workdir, config, dataset.digest)
    return _train_and_evaluate(mode, config, setup, dataset, workdir)


def _train_and_evaluate(mode, config, setup, dataset, workdir):
    from experiments import evaluate, runs, train

    if mode == "evaluate":
        trained = train.restore(config, setup, workdir)
    else:
        curve = evaluate.curve(config, setup.model, dataset)
        trained = train.train(config, setup, dataset, workdir, curve)
    if mode == "train":
        return None
    results = evaluate.evaluate(config, setup.model, dataset, trained, workdir)
    if runs.is_first():
        print(evaluate.report(results))
        print(f"Results: {workdir / 'results.json'}; plots: {workdir / 'plots'}")
    return results


def _chosen_config():
    """The config; to evaluate, that of the run, with the evaluation's overrides."""
    if _MODE.value != "evaluate":
        return cli.load_config(_CONFIG)
    from experiments import runs

    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    return runs.saved_config(_WORKDIR.value, overrides)


if __name__ == "__main__":
    cli.run(main)
