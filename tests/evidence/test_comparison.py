"""Models side by side: probabilities, their errors, and what is refused."""

import numpy as np
import pytest

from ais_jax import BridgeEstimate, compare


def estimate(log_z, error=0.1, **changes):
    numbers = dict.fromkeys(BridgeEstimate._fields, 0) | {
        "log_z": log_z,
        "standard_error": error,
        "lower": log_z,
        "upper": log_z,
        "r_hat": 1.0,
        "wanted_error": 1.0,
    }
    return BridgeEstimate(**numbers | changes)


RESULTS = {"b": estimate(-2.0, 0.3), "a": estimate(-1.0, 0.1), "c": estimate(-9.0, 0.2)}


def test_models_are_ranked_with_bayes_factors():
    table = compare(RESULTS)
    assert table.names == ("a", "b", "c")
    np.testing.assert_allclose(table.log_bayes_factor, [0.0, -1.0, -8.0])
    errors = [0.0, np.hypot(0.1, 0.3), np.hypot(0.1, 0.2)]
    np.testing.assert_allclose(table.log_bayes_factor_error, errors)


def test_probabilities_and_their_errors():
    """By draws of the log evidences."""
    table = compare(RESULTS, {"a": 0.2, "b": 0.5, "c": 0.3})
    weight = np.array([0.2, 0.5, 0.3]) * np.exp([0.0, -1.0, -8.0])
    np.testing.assert_allclose(table.probability, weight / weight.sum())
    noise = 1e-3 * np.random.default_rng(0).normal(size=(20_000, 3))
    drawn = weight * np.exp(noise * [0.1, 0.3, 0.2])
    spread = (drawn / drawn.sum(axis=1, keepdims=True)).std(axis=0)
    np.testing.assert_allclose(table.probability_error, 1e3 * spread, rtol=0.03)


def test_the_table_in_print_in_pandas_and_in_a_picture():
    table = compare(RESULTS)
    lines = str(table).splitlines()
    assert len(lines) == 4 and lines[1].split()[:4] == ["a", "-1.00", "+-", "0.10"]
    frame = table.to_frame()
    assert list(frame.index) == ["a", "b", "c"] and frame.loc["b", "log_z"] == -2.0
    ax = table.plot()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "c"]
    ax.figure.clear()


@pytest.mark.parametrize(
    ("results", "options", "error"),
    [
        ({"a": RESULTS["a"]}, {}, "1 models"),
        (RESULTS | {"d": estimate(0.0, r_hat=2.0)}, {}, r"results\['d'\] warns"),
        (RESULTS | {"d": estimate(0.0, np.inf)}, {}, r"\['d'\] is 0.0 \+- inf, no"),
        (RESULTS, {"prior": {"a": 1.0}}, "give each of b, a, c"),
        (RESULTS, {"prior": dict.fromkeys("abc", np.inf)}, "give each of b, a, c"),
        (
            RESULTS | {"d": estimate(0.0, digest=1), "e": estimate(0.0, digest=2)},
            {},
            r"results\['e'\] and results\['d'\] are of different data",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(results, options, error):
    with pytest.raises(ValueError, match=error):
        compare(results, **options)


def test_models_of_the_same_data_and_of_unknown_ones_are_compared():
    known = {name: estimate(-3.0, digest=1) for name in "de"}
    assert len(compare(RESULTS | known).names) == 5


def test_warnings_can_be_allowed():
    table = compare(RESULTS | {"d": estimate(0.0, r_hat=2.0)}, allow_warnings=True)
    assert table.names[0] == "d"
