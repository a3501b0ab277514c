"""Every setting, with its default; the other configs change some of them.

    python -m experiments.main --config=configs/default.py:ais --config.dataset=digits

The argument after the colon picks the estimator (ais, dreg, iwae, mh_hmc, stl, vae),
and with it the settings of `config.estimator`, or `best`: ais with the settings of
`presets.BEST`. A setting that the estimator does not read does not exist, so a mistyped
one is an error. None means: chosen from the other settings (`configs/presets.py`) or,
in `sharding` and `block_rows`, for the machine.
"""

import difflib

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import presets

MOVES = {
    "num_temperatures": 5,
    "num_leapfrog": 5,
    "average": "end",
    "phi_loss": "elbo",
    "num_phi_samples": 1,
}
ESTIMATORS = {
    "ais": {**MOVES, "schedule": "linear", "final_moves": 1, "resample_below": 0.0},
    "dreg": {},
    "iwae": {},
    "mh_hmc": {**MOVES, "weighting": "uniform"},
    "stl": {},
    "vae": {},
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
    config = ConfigDict()
    config.seed = 0
    config.num_replicates = 1  # seeds trained side by side in one program
    config.num_epochs = 10
    config.batch_size = 128
    config.dataset = "digits"  # a name, a path, tfds:NAME
    config.data_dir = ""  # $AIS_JAX_DATA, else ~/.cache/ais_jax/data
    config.init_from = ""  # folder of a run whose theta and phi training starts from

    config.model = ConfigDict()
    config.model.factory = ""  # your model, package.module:function; docs/own_data.md
    config.model.likelihood = "bernoulli"  # or another of `likelihoods.LIKELIHOODS`
    config.model.network = "perceptron"  # or convolution, whose widths are channels
    config.model.latent_sizes = (50,)  # of each stochastic layer, from the pixels up
    config.model.widths = ((200, 200),)  # of each layer's perceptron
    config.model.activation = "tanh"  # or another of flax.linen
    config.model.data_mean_bias = True  # the decoder starts at the mean image
    config.model.precision = "float32"  # or tf32, bf16
    config.model.force_precision = "auto"  # of HMC's force: the fastest here, or a name

    config.estimator = ConfigDict()
    config.estimator.name = estimator
    config.estimator.num_samples = 1  # K
    for name, value in ESTIMATORS[estimator].items():
        config.estimator[name] = value
    if "num_leapfrog" in config.estimator:
        config.estimator.preconditioner = "encoder"

    config.step_size = ConfigDict()  # of HMC in training
    config.step_size.first = placeholder(float)  # by estimator.preconditioner
    config.step_size.target = 0.6  # acceptance
    config.step_size.grow = 1.002
    config.step_size.shrink = 0.998
    config.step_size.smallest = placeholder(float)  # likewise
    config.step_size.largest = placeholder(float)  # likewise

    config.optimizer = ConfigDict()
    config.optimizer.schedule = "stages"  # the paper's 3^i; constant, cosine
    config.optimizer.warmup = 0.0  # share of the steps in which the rate rises
    config.optimizer.name = "adam"  # or another of optax and optax.contrib
    config.optimizer.learning_rate = (1e-3,)  # one, or one for each replicate
    config.optimizer.clip_norm = placeholder(float)  # of the gradient; None: no limit
    config.optimizer.b1 = placeholder(float)  # 0.9; in these None: the optimizer's
    config.optimizer.b2 = placeholder(float)  # 0.999
    config.optimizer.eps = placeholder(float)  # adam: 1e-4, as the authors'
    config.optimizer.weight_decay = placeholder(float)
    config.optimizer.phi = ConfigDict()  # of the encoder; None: as above
    config.optimizer.phi.name = placeholder(str)
    config.optimizer.phi.learning_rate = placeholder(tuple)
    config.optimizer.phi.clip_norm = placeholder(float)
    config.optimizer.phi.b1 = placeholder(float)
    config.optimizer.phi.b2 = placeholder(float)
    config.optimizer.phi.eps = placeholder(float)
    config.optimizer.phi.weight_decay = placeholder(float)

    config.training = ConfigDict()
    config.training.steps_per_row = 100  # steps in one dispatch, one row of metrics
    config.training.checkpoint_seconds = 60.0  # 0: after every row
    config.training.evaluate_epochs = 0  # test log p(x) every so many epochs; 0: never
    config.training.average_decay = 0.0  # of theta's average, which is evaluated; 0: no
    config.training.block_rows = placeholder(int)  # CPU: by the cache; else all

    config.sharding = ConfigDict()
    config.sharding.data = placeholder(int)  # devices of a batch; CPU: cores, else 1
    config.sharding.replicate = placeholder(int)  # of the replicates; likewise

    config.evaluation = ConfigDict()
    config.evaluation.preset = "standard"  # quick, standard, paper: for every None here
    config.evaluation.seed = 0
    config.evaluation.start = "encoder"  # or wide (the encoder, widened), prior
    config.evaluation.num_examples = placeholder(int)  # test images; 0: all
    config.evaluation.subset = "random"  # which of them, by the seed; or first
    config.evaluation.num_chains = placeholder(int)
    config.evaluation.num_temperatures = placeholder(int)
    config.evaluation.num_leapfrog = placeholder(int)
    config.evaluation.schedule = placeholder(str)  # adaptive, linear, sigmoid
    config.evaluation.preconditioner = placeholder(str)  # unit, encoder
    config.evaluation.iwae_samples = placeholder(int)
    config.evaluation.num_simulated = placeholder(int)  # for the bidirectional gap
    config.evaluation.num_pilot = 32  # examples that tune temperatures and step sizes
    config.evaluation.force_precision = "auto"  # as the model's, of the evaluation
    config.evaluation.target = 0.65  # acceptance in the pilot
    config.evaluation.first_step_size = placeholder(float)  # by the preconditioner
    config.evaluation.gap_threshold = 0.1  # nats; a larger gap prints a warning
    config.evaluation.chunk_size = 100  # examples computed, and saved, at a time
    return config
