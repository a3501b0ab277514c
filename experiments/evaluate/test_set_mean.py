"""Mean log p(x) of a whole test set of which a random part was evaluated."""

from functools import partial

import numpy as np

from experiments.system.errors import NonFiniteResult
from experiments.system.progress import log

FEWEST = 10  # images that a line is fitted to


def of_all_images(evaluator, params, log_p, folder):
    """Mean log p(x) of all test images, or None where it cannot be told.

    The ELBO costs next to nothing, so it is measured on every image, and stands in for
    log p(x) by `predicted_mean`. `log_p` f32[n] are those that were evaluated, in nats.
    """
    num = len(evaluator.dataset.test)
    if evaluator.settings.subset != "random" or not FEWEST <= len(log_p) < num:
        return None
    try:
        measure = partial(evaluator.elbo, params, None)
        every = np.arange(num)
        elbo = evaluator.in_chunks(folder, every, measure, ("elbo",))["elbo"]
    except NonFiniteResult as error:
        log.warning("Nothing is said of all %d test images: %s", num, error)
        return None
    mean, error = predicted_mean(log_p, elbo, evaluator.images)
    return {"mean": mean, "standard_error": error, "num_examples": num}


def predicted_mean(values, covariate, known) -> tuple[float, float]:
    """The mean of N values of which a random n are known, and its standard error.

    The others are predicted by the least-squares line through the known ones against
    the covariate: the regression estimator of survey sampling (Cochran 1977, Sampling
    Techniques, section 7.1), with the error of prediction (Royall 1970).

    Args:
        values: f[n], n > 2.
        covariate: f[N], N > n, of all.
        known: i[n], which of the N the values are.
    """
    values, covariate = np.asarray(values, float), np.asarray(covariate, float)
    n, rest = len(values), np.delete(covariate, known)
    centre = covariate[known].mean()
    apart, away = covariate[known] - centre, rest.mean() - centre
    spread = np.sum(apart**2)
    slope = np.sum(apart * values) / spread if spread > 0 else 0.0
    residual = values - values.mean() - slope * apart
    terms = 1 / n + 1 / len(rest) + (away**2 / spread if spread > 0 else 0.0)
    share = len(rest) / len(covariate)
    error = share * np.sqrt(np.sum(residual**2) / (n - 2) * terms)
    return float(values.mean() + share * slope * away), float(error)
