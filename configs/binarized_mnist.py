"""Larochelle's fixed binarization of MNIST: the paper's one-layer model.

    python -m experiments.main --config=configs/binarized_mnist.py --config.data_dir=DIR

trains `best` for 20 epochs, as many gradient evaluations as 15 epochs of `ais`. Before
commit 59adc69, when `best` made two long trajectories, 10 epochs at this cost gave test
log p(x) = -88.54 +- 0.16 nats over all 10,000 test images, estimated from 500 random
ones by 8 chains, L = 4 and T = 250 (gap 0.56). Training took 14 min on one CPU core.
"""

from configs import default


def get_config(estimator="best"):
    """Returns the config for "best" or, by the argument, an estimator."""
    config = default.get_config(estimator)
    config.dataset = "binarized_mnist"
    config.num_epochs = 20 if estimator == "best" else 15
    if estimator != "best":
        config.optimizer.schedule = "cosine"
    return config
