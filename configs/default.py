"""Every setting of a run, said once: its default, what it may be, and what it means.

    python -m experiments.main --config=configs/default.py:ais --config.dataset=digits

The argument after the colon picks the estimator (ais, dreg, iwae, mh_hmc, stl, vae),
and with it the settings of `config.estimator`, or `best`: ais with the settings of
`presets.BEST`. A setting that the estimator does not read does not exist, so a mistyped
one is an error. Where a type stands for the default it is None: chosen from the other
settings (`configs/presets.py`) or, in `sharding`, for the machine.
"""

import difflib
import math
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import presets


class Range(NamedTuple):
    """The numbers from the least one to another, which is not in it."""

    least: float
    end: float = math.inf

    def __str__(self):
        end = "" if self.end == math.inf else f" and below {self.end}"
        return f"at least {self.least}{end}"


class Setting(NamedTuple):
    """A setting: its default or its type, a line of help, and what it may be.

    Where the default is a type, `example` is a value.
    """

    default: Any
    help: str
    allowed: Range | tuple[str, ...] | None = None
    example: Any = None

    @property
    def kind(self):
        """The type of its values."""
        is_none = isinstance(self.default, type)
        return self.default if is_none else type(self.default)


_UNITS = ("unit", "encoder")
_FORCES = ("auto", "float32", "tf32", "bf16")
_SECTIONS = {
    "": {
        "seed": Setting(0, "of the first replicate", Range(0)),
        "num_replicates": Setting(1, "seeds trained side by side", Range(1)),
        "num_epochs": Setting(10, "passes over the training images", Range(1)),
        "batch_size": Setting(128, "images in a training step", Range(1)),
        "dataset": Setting("digits", "a name, a path, tfds:NAME"),
        "data_dir": Setting("", "else $AIS_JAX_DATA, else ~/.cache/ais_jax/data"),
        "init_from": Setting(
            "", "a run or exported file whose theta and phi training begins at"
        ),
    },
    "model": {
        "factory": Setting("", "your model, package.module:function"),
        "likelihood": Setting("bernoulli", "or another of `likelihoods.LIKELIHOODS`"),
        "network": Setting("perceptron", "or convolution"),
        "latent_sizes": Setting((50,), "of each stochastic layer, from the pixels up"),
        "widths": Setting(
            tuple,
            "of each layer's network; None: ((200, 200),), or channels ((32, 64),)",
            example=((200, 200),),
        ),
        "activation": Setting("tanh", "or another of flax.linen"),
        "missing": Setting(False, "NaN are missing values, and x the observed ones"),
        "data_mean_bias": Setting(True, "the decoder starts at the mean image"),
        "precision": Setting("float32", "of matrix products"),
        "force_precision": Setting("auto", "of HMC's force; auto: by device", _FORCES),
    },
    "estimator": {  # all but the first two are of HMC's moves
        "name": Setting("ais", "the argument of the config"),
        "num_samples": Setting(1, "K, samples or chains of an image"),
        "num_temperatures": Setting(5, "T, weight increments"),
        "num_leapfrog": Setting(5, "L, leapfrog steps of a move"),
        "average": Setting("end", "or points, of the last trajectory"),
        "phi_loss": Setting("elbo", "or another of `losses.PHI_LOSSES`"),
        "num_phi_samples": Setting(1, "draws of q in phi's loss"),
        "preconditioner": Setting("encoder", "the scale of HMC's steps", _UNITS),
        "schedule": Setting("linear", "a name, or betas from 0 to 1 with commas"),
        "final_moves": Setting(1, "moves after the last weight"),
        "late_moves": Setting(
            0, "final_moves of the last fifth of the steps; 0: the same", Range(0)
        ),
        "resample_below": Setting(
            0.0, "share of K; chains of a lower ESS are resampled"
        ),
        "weighting": Setting("importance", "or uniform"),
    },
    "optimizer": {
        "schedule": Setting("stages", "the paper's 3^i epochs; constant, cosine, wsd"),
        "name": Setting("adam", "or another of optax and optax.contrib"),
        "learning_rate": Setting((1e-3,), "one, or one for each replicate"),
        "settings": Setting({}, "others, {'weight_decay': 1e-4, 'clip_norm': 1.0}"),
    },
    "optimizer.phi": {  # of the encoder
        "name": Setting(str, "None: theta's"),
        "learning_rate": Setting(tuple, "None: theta's"),
        "settings": Setting({}, "beside theta's, where the optimizer is the same"),
    },
    "training": {
        "steps_per_row": Setting(100, "in one dispatch, one row of metrics", Range(1)),
        "checkpoint_seconds": Setting(60.0, "0: after every row", Range(0)),
        "evaluate_epochs": Setting(
            0, "test log p(x) every so many; 0: never", Range(0)
        ),
        "average_decay": Setting(
            0.0, "of theta's evaluated average; 0: no", Range(0, 1)
        ),
        "keep_best": Setting(False, "evaluate the best parameters by validation ELBO"),
    },
    "sharding": {
        "data": Setting(int, "devices of a batch; CPU: cores, else 1", Range(1)),
        "replicate": Setting(
            int, "devices of the replicates; CPU: cores, else 1", Range(1)
        ),
    },
    "evaluation": {
        "preset": Setting("default", "or paper, the authors'", (*presets.EVALUATION,)),
        "error": Setting(
            0.0, "nats, of the mean; 0: 0.05 or a tenth of that over images", Range(0)
        ),
        "seed": Setting(0, "of pixels, pilot and chains", Range(0)),
        "start": Setting("encoder", "wide: widened", ("encoder", "prior", "wide")),
        "num_examples": Setting(0, "test images; 0: all", Range(0)),
        "subset": Setting("random", "which of them, by the seed", ("random", "first")),
        "num_pilot": Setting(32, "test images of the pilot", Range(1)),
        "num_chains": Setting(int, "of an image", Range(2)),
        "num_temperatures": Setting(int, "T of all images; None: by error", Range(1)),
        "num_leapfrog": Setting(int, "L, leapfrog steps of a move", Range(1)),
        "schedule": Setting(str, "of the temperatures", ("adaptive", "linear")),
        "preconditioner": Setting(str, "the scale of HMC's steps", _UNITS),
        "iwae_samples": Setting(int, "of the IWAE bound", Range(1)),
        "num_simulated": Setting(
            int, "pairs of the gap; None: by error; 0: none", Range(0)
        ),
        "force_precision": Setting("auto", "of HMC's force; as the model's", _FORCES),
        "chunk_size": Setting(32, "examples computed, and saved, at a time", Range(1)),
    },
}
SETTINGS = {  # by dotted names
    f"{section}.{name}".lstrip("."): setting
    for section, settings in _SECTIONS.items()
    for name, setting in settings.items()
}
ESTIMATORS = ("ais", "dreg", "iwae", "mh_hmc", "stl", "vae")
_MOVING = {  # estimators that move -> defaults of their own
    "ais": {},
    "mh_hmc": {"schedule": "all_target", "weighting": "uniform"},
}


def get_config(estimator="ais"):
    """Returns the default config for an estimator, or for "best"."""
    if estimator == "best":
        config = get_config("ais")
        config.update(presets.BEST)
        return config
    if estimator not in ESTIMATORS:
        known = [*ESTIMATORS, "best"]
        near = difflib.get_close_matches(estimator, known, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"estimator={estimator!r} is unknown: did you mean {near!r}? "
            f"Choose from {', '.join(known)}."
        )
    config = {}
    for name, setting in SETTINGS.items():
        *sections, last = name.split(".")
        is_common = sections != ["estimator"] or last in ("name", "num_samples")
        if is_common or estimator in _MOVING:
            section = config
            for parent in sections:
                section = section.setdefault(parent, {})
            is_none = isinstance(setting.default, type)
            section[last] = placeholder(setting.kind) if is_none else setting.default
    config["estimator"].update(_MOVING.get(estimator, {}), name=estimator)
    return ConfigDict(config)
