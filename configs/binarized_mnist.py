"""Larochelle's fixed binarization of MNIST: the paper's one-layer model.

    python -m experiments.main --config=configs/binarized_mnist.py --config.data_dir=DIR

trains `best` for 10 epochs, as many gradient evaluations as 15 epochs of `ais`. It gave
test log p(x) = -89.21 +- 1.06 nats on 500 random test images (gap 0.56 +- 0.14), by
`quick` at T = 250. Training took 14 min on one CPU core.
"""

from configs import default


def get_config(estimator="best"):
    """Returns the config for "best" or, by the argument, an estimator."""
    config = default.get_config(estimator)
    config.dataset = "binarized_mnist"
    config.num_epochs = 10 if estimator == "best" else 15
    config.optimizer.schedule = "cosine"
    return config
