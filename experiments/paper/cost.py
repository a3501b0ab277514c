"""What a run costs, before it runs.

The cost of training is counted by the estimator (`Estimator.gradient_evaluations`
passes forward and backward through log p(x, z) for an image). With P weights in the
decoder a pass takes 4 P FLOPs (2 P forward, 2 P backward to z), so that

    training    4 P * gradient_evaluations * images * epochs
    evaluation  4 P * chains * (1 + L (T - 1)) for a test image, twice that for a
                simulated pair at T, T / 2, T / 4 and T / 8; 2 P for an IWAE sample

for each replicate. Left out are the encoder, Adam and the pilot: `variants.calibrate`
measures what a training step costs besides.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from ais_jax import sharding
from experiments.data import load
from experiments.data.dataset import Dataset
from experiments.run import build, force, train
from experiments.run.settings import resolve


def sizes_of(settings):
    """The `Sizes` of the data set of a run."""
    return load.sizes(settings.dataset, settings.data_dir)


def gradient_evaluations(settings):
    """Gradient evaluations of the whole training of one replicate.

    Raises:
        ConfigError: where the batch is larger than the data set.
    """
    sizes = sizes_of(settings)
    build.check_batch_size(settings, sizes.num_train)
    model = build.build_model(settings, sizes.image_shape)
    estimator = build.build_estimator(settings, model)
    steps = settings.num_epochs * (sizes.num_train // settings.batch_size)
    return steps * settings.batch_size * estimator.gradient_evaluations


def match(config, budget):
    """Sets a run's epochs by its gradient evaluations; returns their ratio to it."""
    before = gradient_evaluations(resolve(config))
    epochs = max(1, round(config.num_epochs * budget / before))
    ratio = epochs * before / (config.num_epochs * budget)
    config.num_epochs = epochs
    return ratio


def number_of_weights(settings):
    """P: of the decoder's matrices, which every pass multiplies by."""
    model = build.build_model(settings, sizes_of(settings).image_shape)
    theta, _ = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(theta) if len(leaf.shape) == 2)


def evaluation_flops(settings):
    """FLOPs of the evaluation of one replicate."""
    evaluation, num_test = settings.evaluation, sizes_of(settings).num_test
    images = min(evaluation.num_examples or num_test, num_test)
    top = evaluation.num_temperatures
    chain, *ladder = (
        evaluation.num_chains * (1 + evaluation.num_leapfrog * (rung - 1))
        for rung in (top, *(max(1, top // part) for part in (8, 4, 2, 1)))
    )
    passes = images * chain + 2 * evaluation.num_simulated * sum(ladder)
    samples = images * evaluation.iwae_samples
    return number_of_weights(settings) * (4.0 * passes + 2.0 * samples)


def random_dataset(settings, num_batches=8):
    """Random images of the data set's size, so many batches of them."""
    sizes = sizes_of(settings)
    shape = (num_batches * settings.batch_size, sizes.num_pixels)
    images = np.random.default_rng(0).random(shape, np.float32)
    return Dataset(
        name=settings.dataset,
        train=images,
        test=images,
        valid=None,
        image_shape=sizes.image_shape,
        is_binary=False,
        digest="",
        source="",
    )


def seconds_per_step(settings):
    """Seconds that a training step takes, all replicates in it."""
    dataset = random_dataset(settings)
    settings = force.settle(settings, None)
    setup = build.build_training(settings, dataset)
    run_steps = sharding.spread_training(setup.run_steps, setup.mesh)
    keys = jax.vmap(jax.random.key)(jnp.arange(settings.num_replicates))
    images = sharding.place_rows(dataset.train, setup.mesh)
    state, num, seconds = train.initial_state(setup), 1, 0.0
    state, _ = run_steps(state, keys, images, jnp.int32(num))
    while seconds < 0.5:
        num *= 2
        jax.block_until_ready(state)
        started = time.perf_counter()
        state, _ = run_steps(state, keys, images, jnp.int32(num))
        jax.block_until_ready(state)
        seconds = time.perf_counter() - started
    return seconds / num
