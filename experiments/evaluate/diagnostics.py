"""Warnings of an evaluation whose numbers cannot be trusted, and what to do."""

import numpy as np

from experiments.run.train import LOW_ACCEPTANCE
from experiments.system.progress import log

GAP_THRESHOLD = 0.1  # nats; a tenth of what the paper's methods differ by


def of_few_images(settings, dataset):
    """Says so where more test images than there are were asked for."""
    num = len(dataset.test)
    if num < settings.num_examples:
        log.warning(
            "evaluation.num_examples=%d: %s has %d test images, and all are evaluated.",
            settings.num_examples,
            dataset.name,
            num,
        )


def of_sampling(ais, test, settings):
    """Says so where the wanted error was missed, or chains hardly moved."""
    error, wanted = (
        np.hypot(ais.monte_carlo, ais.bias),
        ais.wanted_error or GAP_THRESHOLD,
    )
    if error > wanted:
        log.warning(
            "The error of log p(x), Monte Carlo and bias, is about %.3g nats, above "
            "%.3g; %d of %d images have one above 1 nat. %s",
            error,
            wanted,
            np.sum(ais.standard_error > 1.0),
            len(ais.log_p),
            _more(settings),
        )
    if np.max(ais.num_temperatures) > 1 and np.mean(ais.accept_prob) < LOW_ACCEPTANCE:
        log.warning(
            "HMC accepted %.1g of its moves in the evaluation: the chains stood still. "
            "Use evaluation.preconditioner=unit (here %s).",
            np.mean(ais.accept_prob),
            settings.preconditioner,
        )
    if not test["elbo"]["mean"] < test["iwae"]["mean"] < test["log_p"]["mean"]:
        log.warning(
            "ELBO %.2f, IWAE %.2f and AIS %.2f are not in the order that enough "
            "samples give. %s",
            *(test[name]["mean"] for name in ("elbo", "iwae", "log_p")),
            _more(settings),
        )


def of_gap(gap, settings):
    """Says so where bounds on simulated data are further apart than was asked for."""
    if gap.mean > GAP_THRESHOLD:
        log.warning(
            "The bidirectional gap, %.3f nats, is above %g, and that of %d of %d "
            "simulated pairs above 1 nat: log p(x) may be off by as much. %s Where few "
            "pairs make it, try evaluation.start=wide (here %s).",
            gap.mean,
            GAP_THRESHOLD,
            np.sum(gap.per_pair > 1.0),
            len(gap.per_pair),
            _more(settings),
            settings.start,
        )


def _more(settings):
    if settings.num_temperatures is None:
        return "Lower evaluation.error."
    return f"Raise evaluation.num_temperatures={settings.num_temperatures}."
