"""The training loop: dispatches, metrics, checkpoints, resume."""

import contextlib
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import sharding
from experiments import builders, plots, runs
from experiments.checkpoint import Checkpointer
from experiments.metrics import MetricsWriter, read_metrics
from experiments.progress import Progress, log


class Trained(NamedTuple):
    """A state and what it cost.

    Attributes:
        state: `TrainState` with a leading axis of R replicates.
        step: training steps made.
        epochs: epochs made.
        seconds: wall time of training, summed over resumes.
        gradient_evaluations: passes forward and backward through log p(x, z), for
            one replicate.
    """

    state: Any
    step: int
    epochs: float
    seconds: float
    gradient_evaluations: int


def initial_state(config, setup):
    """The state before the first step, with a leading axis of R replicates."""
    init = jax.vmap(lambda key: setup.init(jax.random.split(key)[0]))
    return jax.jit(
        lambda: init(_replicate_keys(config)),
        out_shardings=sharding.by_replicate(setup.mesh),
    )()


def restore(config, setup, workdir, step=None):
    """The newest checkpoint of a finished or running training.

    Args:
        config: the run's ConfigDict.
        setup: a `builders.Training`.
        workdir: the run's folder.
        step: a checkpoint's step, or None for the newest.

    Returns:
        A `Trained`.

    Raises:
        CheckpointError: where there is none, or it is of another model.
    """
    template = initial_state(config, setup)
    with Checkpointer(Path(workdir) / "checkpoints", read_only=True) as checkpointer:
        state = checkpointer.restore(template, step)
    return _trained(config, setup, workdir, state)


def train(config, setup, dataset, workdir, evaluate=None):
    """Trains to the last step, going on from the newest checkpoint in the folder.

    Args:
        config: a checked ConfigDict.
        setup: a `builders.Training`.
        dataset: a `datasets.Dataset`.
        workdir: the run's folder.
        evaluate: state -> dict of metrics, called every
            `config.training.evaluate_epochs` epochs; or None.

    Returns:
        A `Trained`.

    Raises:
        runs.Stopped: after a signal; the state is saved.
        runs.NonFiniteLoss: naming the step and the last good checkpoint.
    """
    workdir = Path(workdir)
    run_steps = sharding.spread_training(setup.run_steps, setup.mesh)
    keys, rates = _keys_and_rates(config, setup)
    data = sharding.place_rows(dataset.train, setup.mesh)
    state = initial_state(config, setup)
    with (
        Checkpointer(workdir / "checkpoints") as checkpointer,
        runs.StopSignals() as stop,
    ):
        saved = checkpointer.latest_step()
        if saved is not None:
            state = checkpointer.restore(state)
            log.info("Resuming from step %d of %s.", saved, workdir)
        step, started, saved_at = saved or 0, time.monotonic(), time.monotonic()
        with (
            _metrics_writer(workdir, saved) as write,
            Progress(setup.num_steps, step, "step") as progress,
        ):
            before = _seconds(workdir)
            while step < setup.num_steps:
                num = _dispatch_size(config, setup, step)
                state, means = run_steps(state, keys, rates, data, jnp.int32(num))
                means = sharding.fetch(means)
                _check_finite(means, checkpointer, workdir)
                step += num
                row = _row(config, setup, step, state, means)
                if evaluate is not None and _is_due(config, setup, step):
                    row.update(evaluate(state))
                seconds = before + time.monotonic() - started
                write(step, {**row, "seconds": seconds})
                progress.update(step, _summary(row))
                age = time.monotonic() - saved_at
                is_stopping, is_old = sharding.any_process(
                    [stop.requested, age > config.training.checkpoint_seconds]
                )
                if is_old or is_stopping or step == setup.num_steps:
                    checkpointer.save(step, state, wait=is_stopping)
                    saved_at = time.monotonic()
                if is_stopping:
                    raise runs.Stopped(_STOPPED.format(step, setup.num_steps, workdir))
    if runs.is_first():
        rows = read_metrics(workdir / "metrics.jsonl")
        plots.learning_curves(rows, workdir / "plots" / "learning_curves.png")
    return _trained(config, setup, workdir, state)


_STOPPED = (
    "Stopped at step {0} of {1}, saved in {2}. "
    "The same command with --workdir={2} goes on from there."
)


def _replicate_keys(config):
    """One key for each replicate; replicate r is the run of seed + r alone."""
    seeds = config.seed + jnp.arange(config.num_replicates, dtype=jnp.uint32)
    return jax.vmap(jax.random.key)(seeds)


def _keys_and_rates(config, setup):
    """Run keys and learning rates of the replicates, placed on the mesh."""
    rates = jnp.asarray(builders.learning_rates(config), jnp.float32)
    split = jax.vmap(lambda key: jax.random.split(key)[1])
    return jax.jit(
        lambda: (split(_replicate_keys(config)), rates),
        out_shardings=sharding.by_replicate(setup.mesh),
    )()


def _dispatch_size(config, setup, step):
    """Steps up to the next row's end, which is at most the end of the epoch."""
    done = step % setup.steps_per_epoch
    per_row = config.training.steps_per_row
    return min(per_row - done % per_row, setup.steps_per_epoch - done)


def _is_due(config, setup, step):
    every = config.training.evaluate_epochs * setup.steps_per_epoch
    return every and (step % every == 0 or step == setup.num_steps)


def _row(config, setup, step, state, means):
    """One row of metrics.jsonl; lists over replicates where there are several."""
    pick = (lambda a: a[0]) if config.num_replicates == 1 else (lambda a: a)
    row = {
        "epoch": step / setup.steps_per_epoch,
        "elbo": pick(means.elbo),
        "ess": pick(means.ess),
        "gradient_evaluations": _gradient_evaluations(config, setup, step),
    }
    if setup.estimator.num_moves:
        row["accept_prob"] = pick(means.accept_prob)
        row["step_sizes"] = pick(sharding.fetch(state.step_sizes))
    return row


def _summary(row):
    text = f"epoch {row['epoch']:.2f}  ELBO {np.mean(row['elbo']):.2f}"
    if "accept_prob" in row:
        text += f"  acceptance {np.mean(row['accept_prob']):.2f}"
    return text


def _gradient_evaluations(config, setup, step):
    return step * config.batch_size * setup.estimator.gradient_evaluations


@contextlib.contextmanager
def _metrics_writer(workdir, resume_step):
    """The function that writes a row; it does so on the first process alone."""
    if not runs.is_first():
        yield lambda step, row: None
        return
    with MetricsWriter(workdir, resume_step=resume_step) as metrics:
        yield metrics.write


def _seconds(workdir):
    path = workdir / "metrics.jsonl"
    rows = read_metrics(path) if path.exists() else []
    return rows[-1]["seconds"] if rows else 0.0


def _trained(config, setup, workdir, state):
    step = int(np.max(sharding.fetch(state.step)))
    cost = _gradient_evaluations(config, setup, step)
    epochs = step / setup.steps_per_epoch
    return Trained(state, step, epochs, _seconds(Path(workdir)), cost)


def _check_finite(means, checkpointer, workdir):
    """Stops at a loss that is not finite; the state after it is not saved."""
    bad_steps = [step for step in means.bad_step if step >= 0]
    if not bad_steps:
        return
    saved = checkpointer.latest_step()
    where = f"the last good checkpoint is of step {saved} in {workdir}"
    if saved is None:
        where = "no checkpoint had been saved"
    raise runs.NonFiniteLoss(
        f"The loss was not finite at step {min(bad_steps)}; {where}. Try a smaller "
        "optimizer.learning_rate or step_size.largest in another --workdir."
    )
