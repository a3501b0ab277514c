"""Every setting, with its default; the other configs change some of them.

    python -m experiments.main --config=configs/default.py:ais --config.dataset=digits

The argument after the colon picks the estimator (ais, dreg, iwae, mh_hmc, stl, vae),
and with it the settings of `config.estimator`. A setting that the estimator does not
read does not exist, so a mistyped one is an error. None means: chosen from the other
settings, as the comment says.
"""

import difflib

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

MOVES = {"num_temperatures": 5, "num_leapfrog": 5}
ESTIMATORS = {
    "ais": {**MOVES, "schedule": "linear", "final_move": True},
    "dreg": {},
    "iwae": {},
    "mh_hmc": {**MOVES, "weighting": "uniform"},
    "stl": {},
    "vae": {},
}


def get_config(estimator="ais"):
    """Returns the default config for an estimator."""
    if estimator not in ESTIMATORS:
        near = difflib.get_close_matches(estimator, ESTIMATORS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"estimator={estimator!r} is unknown: did you mean {near!r}? "
            f"Choose from {', '.join(ESTIMATORS)}."
        )
    config = ConfigDict()
    config.seed = 0
    config.num_replicates = 1  # seeds trained side by side in one program
    config.num_epochs = 10
    config.batch_size = 128
    config.dataset = "digits"
    config.data_dir = ""  # $AIS_JAX_DATA, else ~/.cache/ais_jax/data

    config.model = ConfigDict()
    config.model.latent_sizes = (50,)  # of each stochastic layer, from the pixels up
    config.model.widths = ((200, 200),)  # of each layer's perceptron
    config.model.activation = "tanh"
    config.model.data_mean_bias = True  # the decoder starts at the mean image
    config.model.precision = "float32"  # or tf32_x3, bf16_x6: its emulations on GPUs
    config.model.force_precision = "float32"  # of HMC's force; tf32, bf16 are faster

    config.estimator = ConfigDict()
    config.estimator.name = estimator
    config.estimator.num_samples = 1  # K
    for name, value in ESTIMATORS[estimator].items():
        config.estimator[name] = value
    if "num_leapfrog" in config.estimator:
        config.estimator.preconditioner = "encoder"

    config.step_size = ConfigDict()  # of HMC in training
    config.step_size.first = placeholder(float)  # 0.1; encoder: 0.2
    config.step_size.target = 0.6  # acceptance
    config.step_size.grow = 1.002
    config.step_size.shrink = 0.998
    config.step_size.smallest = placeholder(float)  # 0.001; encoder: 0.01
    config.step_size.largest = placeholder(float)  # 0.3; encoder: 1.5

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = (1e-3,)  # one, or one for each replicate
    config.optimizer.schedule = "stages"  # the paper's 3^i; constant, cosine
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.eps = 1e-4

    config.training = ConfigDict()
    config.training.steps_per_row = 100  # steps in one dispatch, one row of metrics
    config.training.checkpoint_seconds = 60.0  # 0: after every row
    config.training.evaluate_epochs = 0  # test log p(x) every so many epochs; 0: never
    config.training.block_rows = placeholder(int)  # CPU: by the cache; else all

    config.sharding = ConfigDict()
    config.sharding.data = placeholder(int)  # devices of a batch; CPU: cores, else 1
    config.sharding.replicate = placeholder(int)  # of the replicates; likewise

    config.evaluation = ConfigDict()
    config.evaluation.preset = "standard"  # quick, standard, paper: for every None here
    config.evaluation.seed = 0
    config.evaluation.start = "encoder"  # or prior
    config.evaluation.num_examples = placeholder(int)  # test images; 0: all
    config.evaluation.num_chains = placeholder(int)
    config.evaluation.num_temperatures = placeholder(int)
    config.evaluation.num_leapfrog = placeholder(int)
    config.evaluation.schedule = placeholder(str)  # adaptive, linear, sigmoid
    config.evaluation.preconditioner = placeholder(str)  # unit, encoder
    config.evaluation.iwae_samples = placeholder(int)
    config.evaluation.num_simulated = placeholder(int)  # for the bidirectional gap
    config.evaluation.num_pilot = 32  # examples that tune temperatures and step sizes
    config.evaluation.target = 0.65  # acceptance in the pilot
    config.evaluation.gap_threshold = 0.1  # nats; a larger gap prints a warning
    config.evaluation.chunk_size = 100  # examples computed, and saved, at a time
    return config
