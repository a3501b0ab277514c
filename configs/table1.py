"""Table 1: IWAE-DReG and AIS on Omniglot and MNIST, by the authors' protocol.

python -m experiments.sweep --config=configs/table1.py --workdir=runs/tables

18 models of 3,280 epochs each: months on one machine of two cores (docs/scaling.md).
`configs/table1.py:digits` trains the nine models of one data set on scikit-learn's
digits in a few minutes. The argument after the colon:

    omniglot, mnist   that data set alone
    digits            the digits, a small model, 15 epochs, a quick evaluation

`python -m experiments.report` puts the results beside the paper's numbers.
"""

import difflib

from ml_collections import ConfigDict

from configs import default

ROWS = [  # method, K, T as the paper prints it
    (method, num_samples, num_temperatures)
    for method, num_temperatures in (("dreg", None), ("ais", 5), ("ais", 11))
    for num_samples in (1, 5, 50)
]
PAPER = {  # the paper's test log p(x) of each row, nats
    "omniglot": [
        *(-109.41, -106.11, -103.91),
        *(-103.22, -102.47, -102.03),
        *(-102.45, -101.94, -101.64),
    ],
    "mnist": [
        *(-86.90, -85.52, -84.38),
        *(-84.56, -84.25, -83.93),
        *(-84.14, -83.78, -83.63),
    ],
}


def get_config(structure=""):
    """Returns the sweep's config; the argument restricts or changes it."""
    return restricted(protocol(1, tuple(PAPER)), structure)


def protocol(table, datasets):
    """The authors' protocol for every row of a table.

    Settings that `configs/default.py` has too mean the same here.
    """
    config = default.get_config("ais")
    for name in ("dataset", "batch_size", "estimator"):
        del config[name]
    config.table = table
    config.datasets = datasets
    config.reading = "increments"  # of T: as many moves; released: T - 1
    config.num_epochs = 3280
    config.batch_size = 128  # of AIS and MH-HMC
    config.dreg_batch_size = 20  # of IWAE-DReG
    config.model.data_mean_bias = False
    config.model.force_precision = "float32"
    config.evaluation.force_precision = "float32"
    config.evaluation.preset = "paper"

    config.estimator = ConfigDict()  # of AIS and MH-HMC; L = 5 in both tables
    config.estimator.preconditioner = "unit"

    return config


def restricted(config, structure):
    """Applies the argument after the colon, and returns the config."""
    for part in filter(None, structure.split(",")):
        if part in ("omniglot", "mnist"):
            config.datasets = (part,)
        elif part == "digits":
            _digits(config)
        else:
            known = ["digits", "mnist", "omniglot"]
            near = difflib.get_close_matches(part, known, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"{part!r} after the colon is unknown: did you mean {near!r}? "
                f"Choose from {', '.join(known)}."
            )
    return config


def _digits(config):
    """The model of `configs/digits.py` on the digits, trained and measured quickly."""
    config.datasets = ("digits",)
    config.num_epochs = 15
    config.batch_size = 20
    config.model.latent_sizes = (10,)
    config.model.widths = ((100, 100),)
    config.optimizer.learning_rate = (3e-3,)
    config.evaluation.preset = "default"
    config.evaluation.num_examples = 200
    config.evaluation.num_simulated = 50
