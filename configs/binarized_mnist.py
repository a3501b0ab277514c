"""Larochelle's fixed binarization of MNIST: the paper's one-layer model.

    python -m experiments.main --config=configs/binarized_mnist.py --config.data_dir=DIR

With --config.num_epochs=10 it gave test log p(x) = -89.21 +- 1.06 nats on a random 500
test images (bidirectional gap 0.56 +- 0.14), by `quick` at T = 250, after 14 min of
training on one CPU core (docs/gradients.md); the default 50 epochs were not run.
"""

from configs import default


def get_config(estimator="best"):
    """Returns the config for "best" or, by the argument, an estimator."""
    config = default.get_config(estimator)
    config.dataset = "binarized_mnist"
    config.num_epochs = 50
    config.optimizer.schedule = "cosine"
    return config
