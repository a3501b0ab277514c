"""How long an evaluation will take, about, before it starts."""

from ais_jax.evidence.row_estimates import FEWEST_PAIRS, PROBED
from ais_jax.evidence.row_search import Rule, expected_moves
from experiments.system.progress import log, spoken

SAMPLE_COST = 0.1  # of a sample of the encoder, in moves of a chain
MEASURED_SECONDS = 2.0  # of training show its pace
COMPILATION = 0.3  # times the training's
SHORT_SECONDS = 60.0  # that nobody needs to be warned of


def rule_of(settings):
    """The `Rule` of an evaluation's settings."""
    return Rule(
        settings.error,
        settings.num_temperatures,
        settings.num_chains,
        is_placed=settings.schedule == "adaptive",
        num_pilot=settings.num_pilot,
    )


def pair_moves(settings, rule):
    """Moves of the chains of the bidirectional gap."""
    num = settings.num_simulated
    num = PROBED + FEWEST_PAIRS if num is None else num
    return expected_moves(rule, num, is_paired=True)


def encoder_moves(settings):
    """What the encoder's bounds of an image cost, in moves."""
    return SAMPLE_COST * settings.iwae_samples


def num_gradients(settings, num_images):
    """Gradient evaluations that an evaluation of so many images is worth."""
    rule, num = rule_of(settings), min(settings.num_examples or num_images, num_images)
    moves = expected_moves(rule, num) + pair_moves(settings, rule)
    return settings.num_leapfrog * (moves + num * encoder_moves(settings))


def teller(settings, num_images, num_training):
    """A function of each row of metrics, which tells the time once the pace is known.

    A gradient evaluation of an evaluation takes as long as one of training.

    Args:
        settings: of the evaluation, or None where there will be none.
        num_images: test images that there are.
        num_training: gradient evaluations of the whole training, in one replicate.
    """
    rows = []

    def tell(row):
        rows[1:] = [row]
        found = pace(rows)
        if found is None or tell.is_done:
            return
        tell.is_done = True
        each, compilation = found
        training = compilation + each * num_training
        text = f"About {spoken(training)} of training"
        if settings is None:
            log.info("%s.", text)
            return
        evaluation = _seconds(found, settings, num_images)
        log.info("%s and %s of evaluation.", text, spoken(evaluation))
        _warn(evaluation, training)

    tell.is_done = False
    return tell


def tell_before(settings, num_images, rows):
    """Tells how long an evaluation takes, by the pace of the training's rows."""
    if (found := pace(rows)) is None:
        return
    evaluation = _seconds(found, settings, num_images)
    log.info("About %s of evaluation, at the training's pace.", spoken(evaluation))
    _warn(evaluation, rows[-1]["seconds"])


def pace(rows):
    """(seconds of a gradient evaluation, of compilation) by rows, or None."""
    if len(rows) < 2:
        return None
    first, last = rows[0], rows[-1]
    seconds = last["seconds"] - first["seconds"]
    done = last["gradient_evaluations"] - first["gradient_evaluations"]
    if seconds < MEASURED_SECONDS or done <= 0:
        return None
    each = seconds / done
    return each, max(0.0, first["seconds"] - each * first["gradient_evaluations"])


def _seconds(found, settings, num_images):
    each, compilation = found
    return COMPILATION * compilation + each * num_gradients(settings, num_images)


def _warn(evaluation, training):
    """Says so where an evaluation takes longer than the training."""
    if evaluation > max(training, SHORT_SECONDS):
        log.warning(
            "The evaluation takes longer than the training, %s: a larger "
            "evaluation.error or fewer evaluation.num_examples shorten it.",
            spoken(evaluation),
        )
