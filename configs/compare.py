"""Better gradients, one change at a time and all together, at equal cost.

python -m experiments.sweep --config=configs/compare.py --config.run.data_dir=DIR

The baseline is the paper's method at this project's defaults. Each of the others
changes some of its settings and trains for so many epochs that all make the same number
of gradient evaluations (`config.equal_cost`), two seeds side by side.
The argument after the colon is a data set: omniglot, mnist or digits.
"""

import importlib

from ml_collections import ConfigDict

from ais_jax.checks import lookup
from configs import presets

DATASETS = ("digits", "mnist", "omniglot")
POINTS = {  # one trajectory on the posterior, averaged; in the end two
    name: presets.BEST["estimator"][name]
    for name in ("num_temperatures", "num_leapfrog", "late_moves", "average")
}
PHI = {
    name: presets.BEST["estimator"][name] for name in ("phi_loss", "num_phi_samples")
}


def get_config(dataset="omniglot"):
    """Returns the comparison's config for a data set."""
    module = importlib.import_module(f"configs.{lookup('dataset', dataset, DATASETS)}")
    config = ConfigDict()
    config.baseline = "ais"  # the variant that the others are compared with
    config.equal_cost = True  # epochs so that all make the baseline's evaluations
    config.run = module.get_config("ais")  # what the variants change
    config.run.num_replicates = 2
    config.variants = ConfigDict(
        {
            "ais": {},
            "ais-rate": {"optimizer": {"learning_rate": (3e-3,)}},
            "ais-phi": {"estimator": PHI},
            "points": {"estimator": POINTS},
            "points-rate": {
                "estimator": POINTS,
                "optimizer": {"learning_rate": (3e-3,)},
            },
            "points-phi": {  # `best` but for Muon
                "estimator": presets.BEST["estimator"],
                "optimizer": {
                    "learning_rate": (5e-3,),
                    "phi": {"learning_rate": (1.5e-3,)},
                },
            },
            "best": {
                "estimator": presets.BEST["estimator"],
                "optimizer": presets.BEST["optimizer"] | {"schedule": "cosine"},
            },
        }
    )
    return config
