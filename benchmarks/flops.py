"""Counting FLOPs: the least there can be, and what compiled programs do."""

import itertools
import re

import jax

from ais_jax import models
from ais_jax.batching import chain_keys
from ais_jax.path import evaluate
from benchmarks import common


def step_minimum(work, num_samples, num_temperatures):
    """The sampler's minimum and that of theta's and phi's gradients."""
    sampler = work.minimum_flops(num_samples, num_temperatures)
    return sampler + gradient_minimum(work, num_samples, 1)


def gradient_minimum(work, num_samples, num_phi_samples):
    """The matrix products of theta's and phi's gradients for a batch.

    For theta: forward, backward in the hidden layers, and in the weights, for each
    sample. For phi: the encoder forward, backward in its weights and in its hidden
    layers, and a pass of the decoder in z for each sample.
    """
    sizes = (work.latent, *work.widths[::-1], work.data_size)
    decoder = [2 * a * b for a, b in itertools.pairwise(sizes)]
    theta = 3 * sum(decoder) - decoder[0]
    first, *hidden = [2 * a * b for a, b in zip(sizes[::-1], sizes[-2::-1])]
    hidden[-1] *= 2  # the mean's and the scale's heads
    phi = 2 * first + 3 * sum(hidden) + num_phi_samples * work.pass_flops()
    return work.batch * (num_samples * theta + phi)


def counts_flops():
    """Whether XLA's text and cost analysis show the FLOPs: on a CPU."""
    return jax.default_backend() == "cpu"


def dot_flops(program):
    """Matrix-product FLOPs of a compiled program, loops times their trip counts.

    XLA's own cost analysis counts the body of a loop once, whatever its trip count.

    Args:
        program: a compiled JAX program.

    Returns:
        An int.

    Raises:
        ValueError: for a loop whose trip count XLA does not know.
    """
    bodies = _computations(program.as_text())
    return _dots_in(bodies, bodies["ENTRY"])


_CALLED = re.compile(r"(?:calls|body|condition|to_apply)=%?([\w.\-]+)")
_LHS_DIMS = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


def _computations(text):
    """HLO text -> dict of computation name to its lines; the entry is 'ENTRY'."""
    bodies, name = {}, None
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
        if head and not line.startswith((" ", "HloModule")):
            name = "ENTRY" if head[1] else head[2]
            bodies[name] = []
        elif name:
            bodies[name].append(line)
    return bodies


def _dots_in(bodies, lines):
    shapes = dict(re.findall(r"%?([\w.\-]+) = \w+\[([\d,]*)\]", "\n".join(lines)))
    total = 0
    for line in lines:
        if dot := re.search(r"= \w+\[([\d,]*)\].* dot\((.*?)\)", line):
            operand = re.findall(r"%?([\w.\-]+)(?:,|$)", dot[2])[0]
            lhs = _sizes(shapes[operand])
            depth = _product(lhs[i] for i in _sizes(_LHS_DIMS.search(line)[1]))
            total += 2 * depth * _product(_sizes(dot[1]))
        inner = sum(_dots_in(bodies, bodies[n]) for n in _CALLED.findall(line))
        if inner and " while(" in line:
            if not (trips := _TRIPS.search(line)):
                raise ValueError(f"unknown trip count: {line.strip()[:80]}")
            inner *= int(trips[1])
        total += inner
    return total


def _sizes(text):
    return [int(size) for size in text.split(",") if size]


def _product(values):
    total = 1
    for value in values:
        total *= value
    return total


def xla_sampler_flops(work, num_samples, num_moves):
    """FLOPs of the sampler by XLA's cost analysis, all kinds of operations counted.

    XLA counts a loop's body once. So it is asked about three programs whose loops run
    at most once: the first evaluation, one move of L = 1 and one move of L = 2. Their
    differences are the cost of a move and of a leapfrog step.

    Args:
        work: a `Workload`.
        num_samples: K.
        num_moves: M.

    Returns:
        A float.
    """
    start = _xla_flops(work, _start_only(work, num_samples), 0)
    one, two = (_xla_flops(work, _one_move(work, num_samples, n), 1) for n in (1, 2))
    return start + num_moves * ((one - start) + (work.num_leapfrog - 1) * (two - one))


def _xla_flops(work, function, num_moves):
    arguments = common.sampler_arguments(work, num_moves)
    return common.compiled(function, *arguments)[1].cost_analysis()["flops"]


def _one_move(work, num_samples, num_leapfrog):
    work = work._replace(num_leapfrog=num_leapfrog)
    return common.make_sampler(common.estimator(work, num_samples, 1), None)


def _start_only(work, num_samples):
    """The first evaluation of every chain."""
    model = work.model()

    def one(key, theta, phi, x):
        path = models.posterior_path(model, theta, phi, x)
        start = lambda key: evaluate(path, path.sample_base(key))
        return jax.vmap(start)(chain_keys(key, num_samples))

    def start(key, theta, phi, x, step_sizes):
        keys = chain_keys(key, len(x))
        return jax.vmap(one, (0, None, None, 0))(keys, theta, phi, x)

    return start
