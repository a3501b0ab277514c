"""Sweeps of one run's config over values of any of its settings."""

import ast
import itertools

import numpy as np
from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

from ais_jax.checks import unknown_name
from experiments.paper import compare
from experiments.run.settings import flatten
from experiments.system.errors import InputError


def select(config: ConfigDict, over, num_random=0, seed=0):
    """The variants of a run's config over a grid, called by what they change.

    `over` are texts NAME=VALUE,VALUE,... of dotted settings. Of the grid's points
    `num_random` are drawn, without doubles, by the seed, or all where it is 0.
    """
    names, values = zip(*(_axis(config, text) for text in over))
    points = list(itertools.product(*values))
    if num_random:
        order = np.random.default_rng(seed).permutation(len(points))[:num_random]
        points = [points[i] for i in sorted(order)]
    return [_variant(config, dict(zip(names, point))) for point in points]


def _axis(config, text):
    """(setting, its values) of a text NAME=VALUE,VALUE,..."""
    name, _, listed = text.partition("=")
    known = flatten(config.to_dict())
    if name not in known:
        raise InputError(unknown_name("over", name, list(known)))
    try:
        values = ast.literal_eval(f"[{listed}]")
    except (SyntaxError, ValueError):
        values = [value.strip() for value in listed.split(",")]
    if not values or values == [""]:
        raise InputError(f"over={text}: use NAME=VALUE,VALUE,...")
    if isinstance(known[name], tuple):
        values = [v if isinstance(v, tuple) else (v,) for v in values]
    return name, values


def _variant(config, changes):
    nested = unflatten_dict(changes, sep=".")
    run = compare.changed(config, nested, f"over={changes}")
    return compare.variant(_name(changes), run, changes)


def _name(changes):
    """A folder's name, such as learning_rate=0.003,num_samples=5."""
    parts = []
    for name, value in changes.items():
        text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
        parts.append(f"{name.rpartition('.')[2]}={text}")
    return ",".join(parts).replace("/", "_").replace(" ", "")
