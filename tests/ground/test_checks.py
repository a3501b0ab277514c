"""One refusal of an unknown name, with the nearest that is known."""

import pytest

from ais_jax.checks import lookup


def test_an_entry_of_a_table_and_a_name_of_a_list():
    assert lookup("letter", "b", {"a": 1, "b": 2}) == 2
    assert lookup("letter", "b", ("a", "b")) == "b"


@pytest.mark.parametrize("table", [{"linear": 1, "sigmoid": 2}, ("linear", "sigmoid")])
def test_an_unknown_name_is_refused_with_the_nearest_and_all(table):
    message = (
        "schedule='liner' is unknown: did you mean 'linear'? "
        "Choose from linear, sigmoid."
    )
    with pytest.raises(ValueError) as error:
        lookup("schedule", "liner", table)
    assert str(error.value) == message
