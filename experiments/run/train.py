"""The training loop: dispatches, metrics, checkpoints, resume."""

import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import sharding
from ais_jax.batching import example_keys
from ais_jax.training.step import draw_pixels
from experiments.run import build, parameters
from experiments.run.build import Training
from experiments.run.checkpoint import Checkpointer
from experiments.run.metrics import last_row, metrics_writer, read_metrics
from experiments.run.run import Run
from experiments.run.settings import replicate_names
from experiments.system.devices import is_first
from experiments.system.errors import Stopped
from experiments.system.progress import Progress, log
from experiments.system.signals import StopSignals

LOW_ACCEPTANCE = 0.05  # a lower mean acceptance of HMC is warned of


def initial_state(setup):
    """The state before the first step, with a leading axis of R replicates."""
    return _placed(setup, _init)


def template(setup):
    """The shapes and the sharding of `initial_state`, which is not computed."""
    place = sharding.by_replicate(setup.mesh)
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place),
        jax.eval_shape(partial(_init, setup)),
    )


def as_run(setup: Training, workdir: Path, state) -> Run:
    """The model that a state holds; the optimizers' part of it is left behind."""
    both = state.evaluated
    steps, *leaves = sharding.fetch([state.step, *jax.tree.leaves(both)])
    each = jax.tree.structure(both).unflatten
    replicates = tuple(each(leaves) for leaves in zip(*leaves))
    return Run(
        setup.settings,
        setup.model,
        replicates,
        setup.mesh,
        workdir,
        setup.image_shape,
        setup.levels,
        int(steps[0]),
    )


def train(
    setup: Training, dataset, workdir: Path, evaluate=None, draw=None, tell=None
) -> Run:
    """Trains to the last step, going on from the newest checkpoint in the folder.

    After a signal the state is saved and `Stopped` raised.

    Args:
        setup: of `build.build_training`.
        dataset: a `Dataset`.
        workdir: the run's folder.
        evaluate: `Run` -> dict of metrics, called every `training.evaluate_epochs`.
        draw: `Run` -> dict of pictures u8[H, W, C] for TensorBoard, called after 1, 2,
            4, 8, ... epochs.
        tell: called with each row of metrics.
    """
    workdir = Path(workdir)
    checkpoints = Checkpointer(workdir / "checkpoints", keep=setup.num_kept)
    with checkpoints as checkpointer, StopSignals() as stop:
        saved = checkpointer.latest_step()
        if saved is None:
            state = parameters.start(setup, initial_state(setup))
        else:
            state = checkpointer.restore(template(setup))
            saved = checkpointer.latest_step()
            log.info("Resuming from step %d of %s.", saved, workdir)
            _warn_of_missing_rows(setup, workdir / "metrics.jsonl", saved)
        with (
            metrics_writer(workdir, saved) as write,
            Progress("training", setup.num_steps, saved or 0) as progress,
        ):
            hooks = evaluate, draw, tell
            show = _reporter(setup, workdir, write, progress, saved or 0, hooks)
            keep = _keeper(setup, workdir, checkpointer, stop)
            check = partial(_check_finite, checkpointer)
            state = _loop(setup, dataset, saved or 0, state, check, show, keep)
    if is_first():
        _warn_of_low_acceptance(read_metrics(workdir / "metrics.jsonl"))
    return as_run(setup, workdir, state)


def _loop(setup, dataset, step, state, check, show, keep):
    """Steps from `step` to the last; returns the state."""
    programs = [
        (phase.end, sharding.spread_training(phase.run_steps, setup.mesh))
        for phase in setup.phases
    ]
    keys = _placed(setup, lambda setup: _replicate_keys(setup.settings)[:, 1])
    data = sharding.place_rows(dataset.train, setup.mesh)
    validate = validator(setup, dataset) if setup.keep_best else None
    while step < setup.num_steps:
        num = _dispatch_size(setup, step)
        run_steps = next(program for end, program in programs if step < end)
        state, means = run_steps(state, keys, data, jnp.int32(num))
        means = sharding.fetch(means)
        step += num
        check(means)
        extra = {}
        if validate is not None and step % setup.steps_per_epoch == 0:
            state, elbo = validate(state)
            extra = {"valid_elbo": sharding.fetch(elbo)}
        show(step, state, means, extra)
        keep(step, state)
    return state


def validator(setup, dataset):
    """State -> (state, validation ELBO f32[R]), on the same pixels and draws."""
    pixel_key, key = jax.random.split(jax.random.key(setup.settings.seed))
    x = jnp.asarray(dataset.valid)
    if build.draws_pixels(setup.settings, dataset):
        x = draw_pixels(example_keys(pixel_key, jnp.arange(len(x))), x)
    place = sharding.by_replicate(setup.mesh)
    each = jax.vmap(setup.keep_best, (0, None, None))
    keep_best = jax.jit(each, donate_argnums=0, out_shardings=place)
    x = np.asarray(x)  # which every process holds
    return lambda state: keep_best(state, key, x)


def _reporter(setup, workdir, write, progress, done, hooks):
    """(step, state, means, extra): writes and shows a row of metrics."""
    started, before = time.monotonic(), last_row(workdir).get("seconds", 0.0)
    evaluate, draw, tell = hooks

    def show(step, state, means, extra):
        nonlocal done
        row, pictures = _row(setup, step, state, means, extra), {}
        if evaluate is not None and _is_due(setup, step):
            row.update(evaluate(as_run(setup, workdir, state)))
        if draw is not None and _is_drawn(setup, step):
            pictures = draw(as_run(setup, workdir, state))
        row["seconds"] = before + time.monotonic() - started
        write(step, row, pictures)
        progress.advance(_summary(setup, row), step - done)
        done = step
        if tell is not None:
            tell(row)

    return show


def _keeper(setup, workdir, checkpointer, stop):
    """(step, state): saves a checkpoint when one is due; stops after a signal."""
    saved_at = time.monotonic()

    def keep(step, state):
        nonlocal saved_at
        age = time.monotonic() - saved_at
        is_stopping, is_old = sharding.any_process(
            [stop.requested, age > setup.settings.checkpoint_seconds]
        )
        is_kept = step in (setup.num_kept, setup.num_steps)
        if is_old or is_stopping or is_kept:
            checkpointer.save(step, state, wait=is_stopping)
            saved_at = time.monotonic()
        if is_stopping:
            raise Stopped(
                f"Stopped at step {step} of {setup.num_steps}, saved in {workdir}. "
                f"The same command with --workdir={workdir} goes on from there."
            )

    return keep


def _init(setup):
    def init(key, rates):
        return setup.init(key, learning_rates=rates)

    rates = jnp.asarray(setup.settings.learning_rates, jnp.float32)
    return jax.vmap(init)(_replicate_keys(setup.settings)[:, 0], rates)


def _replicate_keys(settings):
    """The key of each replicate's start and run; r is the run of seed + r alone."""
    seeds = settings.seed + jnp.arange(settings.num_replicates, dtype=jnp.uint32)
    return jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(seeds)


def _placed(setup, function):
    """What the function makes of the set-up, each replicate on its devices."""
    place = sharding.by_replicate(setup.mesh)
    return jax.jit(partial(function, setup), out_shardings=place)()


def _dispatch_size(setup, step):
    """Steps up to the next row's end, which is at most the end of the epoch."""
    done = step % setup.steps_per_epoch
    per_row = setup.settings.steps_per_row
    return min(per_row - done % per_row, setup.steps_per_epoch - done)


def _is_due(setup, step):
    every = setup.settings.evaluate_epochs * setup.steps_per_epoch
    return every and (step % every == 0 or step == setup.num_steps)


def _is_drawn(setup, step):
    epochs, rest = divmod(step, setup.steps_per_epoch)
    return rest == 0 and epochs & (epochs - 1) == 0


def _row(setup, step, state, means, extra):
    """One row of metrics.jsonl; lists over replicates where there are several."""
    values = {"elbo": means.elbo, "ess": means.ess, **extra}
    if len(means.accept_prob[0]):
        values["accept_prob"] = means.accept_prob
        values["step_sizes"] = sharding.fetch(state.step_sizes)
    if setup.settings.num_replicates == 1:
        values = {name: value[0] for name, value in values.items()}
    return {
        "epoch": step / setup.steps_per_epoch,
        **values,
        "gradient_evaluations": setup.num_gradients(step),
    }


def _summary(setup, row):
    """A row as text: the mean over seeds, or each of replicates that differ."""
    names = ("elbo", "accept_prob")
    found = [np.asarray(row[name]) for name in names if name in row]
    if replicate_names(setup.settings):
        found = [values.reshape(len(values), -1).mean(1) for values in found]
    else:
        found = [values.mean(keepdims=True).ravel() for values in found]
    texts = [" ".join(f"{value:.2f}" for value in values) for values in found]
    labels = zip(("ELBO", "acceptance"), texts)
    return "  ".join([f"epoch {row['epoch']:.2f}", *map(" ".join, labels)])


def _warn_of_missing_rows(setup, path, saved):
    """Says which rows up to a checkpoint's step are no longer in metrics.jsonl."""
    written = {row["step"] for row in read_metrics(path)}
    missing, step = [], 0
    while step < saved:
        step += _dispatch_size(setup, step)
        missing += [step] * (step not in written)
    if missing and is_first():
        log.warning(
            "%s lacks %d rows of steps up to %d, which were lost: those of steps %s%s. "
            "The training is whole; its curves have a gap.",
            path,
            len(missing),
            saved,
            ", ".join(map(str, missing[:9])),
            ", ..." * (len(missing) > 9),
        )


def _warn_of_low_acceptance(rows):
    """Says so where HMC hardly moved in the whole training."""
    accepted = [row["accept_prob"] for row in rows if "accept_prob" in row]
    if accepted and np.min(np.mean(accepted, axis=0)) < LOW_ACCEPTANCE:
        log.warning(
            "HMC accepted %.1g of its moves over the whole training: the chains stood "
            "still. Set estimator.preconditioner=encoder, or lower "
            "optimizer.learning_rate.",
            np.min(np.mean(accepted, axis=0)),
        )


def _check_finite(checkpointer, means):
    """Stops at a loss that is not finite; the state after it is not saved."""
    bad_steps = [step for step in means.bad_step if step >= 0]
    if bad_steps:
        raise checkpointer.non_finite("The loss", min(bad_steps))
