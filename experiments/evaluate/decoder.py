"""Log p(x) of a decoder that was trained elsewhere."""

from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from ais_jax.models.decoder import OF_DECODERS, from_decoder
from experiments.data import load
from experiments.data.dataset import GIVEN
from experiments.evaluate import evaluate
from experiments.run import build, factory, launch, train
from experiments.run.settings import changed, resolve
from experiments.system import files
from experiments.system.errors import ConfigError, DataError


def evaluate_decoder(config, decode, weights, workdir, dataset=None):
    """Log p(x) of test images under z ~ N(0, I) and a decoder, with errors and gap.

    An encoder is fitted to it, by the config's estimator (`vae` is enough) for its
    epochs; or, with `evaluation.start=prior`, the chains start from the prior and
    nothing is fitted. The folder then holds a run like any other, whose theta is
    `weights`, unchanged.

    Args:
        config: a ConfigDict of `configs/default.py`'s shape. `model.likelihood` says
            what the decoder gives, `model.latent_sizes` the one size D of z,
            `model.widths` the encoder's; `model.factory` is set to "given".
        decode: (weights, z f32[D]) -> the likelihood's output f32[X]: logits of
            Bernoulli pixels, log rates of counts, means. A likelihood with a log scale
            takes (output, log_scale f32[X]).
        weights: a pytree of arrays, NumPy's or Flax's.
        workdir: the run's folder.
        dataset: a `Dataset`, where `config.dataset` says "given".

    Returns:
        The contents of results.json.

    Raises:
        InputError: for bad input, such as a decoder of another shape.
    """
    workdir = Path(workdir)
    config = changed(config, {"model.factory": GIVEN})
    settings = resolve(config)
    if settings.optimizer.get("weight_decay"):
        raise ConfigError(
            f"optimizer.settings.weight_decay={settings.optimizer['weight_decay']} "
            "would change the decoder: use optimizer.name=adam"
        )
    if dataset is None:
        dataset = load.load(settings.dataset, settings.data_dir)
    if dataset.num_covariates or OF_DECODERS[settings.model["likelihood"]].has_library:
        raise ConfigError(
            f"dataset={dataset.name} with model.likelihood="
            f"{settings.model['likelihood']}: a decoder of z alone takes neither "
            "covariates nor a library size; use log_likelihood with a model of your own"
        )
    model = fixed_model(settings, dataset.image_shape, decode, weights)
    given = dataset if settings.dataset == GIVEN else None
    if settings.evaluation.start != "prior":
        return launch.train_and_evaluate(config, workdir, dataset=given, model=model)
    with files.prepared(workdir):
        setup, dataset = launch.open_training(settings, workdir, given, model)
        run = train.as_run(setup, workdir, train.initial_state(setup))
        results = evaluate.evaluate(run, dataset)
    print(evaluate.report(results))
    return results


def fixed_model(settings, image_shape, decode, weights):
    """A model whose theta is the decoder's weights, which no gradient reaches."""
    family = OF_DECODERS[settings.model["likelihood"]]
    sizes = settings.model["latent_sizes"]
    if len(sizes) != 1:
        raise ConfigError(f"model.latent_sizes={sizes}: give the one size of z")
    base = build.build_model(settings._replace(factory=""), image_shape)
    weights = jax.tree.map(np.float32, weights)

    model = from_decoder(
        lambda theta, z: decode(jax.lax.stop_gradient(theta), z), sizes[0], family
    )

    def output(theta, z):
        given = decode(theta, z)
        return given if family.has_scale else (given, None)

    _check_shape(output, weights, sizes[0], image_shape)
    if settings.evaluation.start == "prior":
        return model._replace(init=lambda key: (weights, ()))
    return model._replace(
        init=lambda key: (weights, base.init(key)[1]), proposal=base.proposal
    )


def evaluate_named(config, decoder, weights, workdir):
    """`evaluate_decoder` of a function package.module:function and an .npz file.

    Names such as `Dense_0/kernel` in the file become nested dicts.
    """
    decode = factory.load("decoder", decoder, weights)
    arrays = files.read_arrays(Path(weights))
    if arrays is None:
        raise DataError(f"weights={weights}: there is no .npz file that can be read")
    tree = unflatten_dict({tuple(k.split("/")): v for k, v in arrays.items()})
    return evaluate_decoder(config, decode, tree, workdir)


def _check_shape(output, weights, latent_size, image_shape):
    z = jax.ShapeDtypeStruct((latent_size,), np.float32)
    try:
        shape = jax.eval_shape(output, weights, z)[0].shape
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"the decoder refuses z of model.latent_sizes=({latent_size},): "
            f"{type(error).__name__}: {reason}"
        ) from error
    size = int(np.prod(image_shape))
    if shape != (size,):
        raise ConfigError(
            f"the decoder gives {list(shape)} for one z: it must give [{size}], one "
            "number for each value of an image, row by row"
        )
