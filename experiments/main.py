"""Trains and evaluates a deep latent-variable model, as one config says.

python -m experiments.main --config=configs/digits.py
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments import cli
from experiments.progress import log

MODES = ("train_and_evaluate", "train", "evaluate")


def main(config_flag):
    """Runs the mode that the flags ask for."""
    args = flags.FLAGS
    cli.start_processes(
        args.coordinator, args.num_processes, args.process_id, args.start_seconds
    )
    if args.mode == "evaluate":
        config = _saved_config(args.workdir)
    else:
        config = cli.load_config(config_flag)
    if args.coordinator is None:
        cli.use_cores([config])
    run(args.mode, config, args.workdir, args.compile_cache)


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
    builders.build_mesh(config)
    datasets.check_available(config.dataset, config.data_dir)
    workdir = Path(workdir or runs.default_workdir(config))
    runs.prepare(workdir)
    log.info("Working directory: %s", workdir)
    cli.use_compile_cache(compile_cache)
    dataset = datasets.load(config.dataset, config.data_dir)
    setup = builders.build_training(config, dataset)
    runs.claim(workdir, config, dataset.digest, write=mode != "evaluate")
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


def _saved_config(workdir):
    """The config of the run to evaluate, with the evaluation's overrides."""
    from experiments import runs

    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    return runs.saved_config(workdir, overrides)


def _define_flags():
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder of the run; one that is there is resumed. Default: new.",
    )
    flags.DEFINE_enum("mode", "train_and_evaluate", MODES, "What to do.")
    flags.DEFINE_string(
        "compile_cache",
        "~/.cache/ais_jax/xla",
        "Folder of JAX's persistent compilation cache; empty for none.",
    )
    flags.DEFINE_string(
        "coordinator", None, "Many processes: 'auto', or host:port of the first one."
    )
    flags.DEFINE_integer("num_processes", None, "With host:port.")
    flags.DEFINE_integer("process_id", None, "With host:port; from 0.")
    flags.DEFINE_integer(
        "start_seconds", 300, "How long to wait for the other processes.", 1
    )
    return cli.define_config("digits.py")


if __name__ == "__main__":
    config_flag = _define_flags()
    cli.run(lambda: main(config_flag))
