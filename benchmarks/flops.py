"""FLOPs: the machine's peak, the least there can be, and what programs do."""

import itertools
import math
import re
import statistics
from functools import partial

import jax
import jax.numpy as jnp

from benchmarks import common, runner

PEAKS = {"float32": "matrix product", "tf32": "TF32 product", "bf16": "bf16 product"}


def peak_size():
    """The size of the square products that stand for the machine's peaks."""
    return 8192 if common.on_gpu() else 2048


def matrix_products():
    """The square products, by their names in `PEAKS`; TF32 is a GPU's alone."""
    names = PEAKS if common.on_gpu() else ("float32", "bf16")
    return {PEAKS[name]: _matrix_product(name) for name in names}


def _matrix_product(name):
    dtype = jnp.bfloat16 if name == "bf16" else jnp.float32
    a = jax.random.normal(jax.random.key(0), (peak_size(),) * 2, dtype)
    full, fast = jax.lax.Precision.HIGHEST, jax.lax.Precision.DEFAULT
    product = partial(
        jnp.matmul,
        precision=full if name == "float32" else fast,  # fast is TF32 on a GPU
        preferred_element_type=jnp.float32,
    )
    return common.compiled(product, a, a)[0]


def peak_shares(times, name, flops):
    """Median rate of `name` as a share of each peak in its round: columns of a row.

    The columns of another than 'ours' bear its name; none where it was not measured.
    """
    whole = 2 * peak_size() ** 3
    which = "" if name == "ours" else f", {name}"
    return {
        f"share of {_peak_name(peak)}{which}": flops
        / whole
        / runner.ratio(times, name, product)
        for peak, product in PEAKS.items()
        if {name, product} <= times.keys()
    }


def peak_rates(times):
    """GFLOP/s of the matrix products: columns of a row."""
    return {
        f"{_peak_name(peak)} GFLOP/s": 2e-9
        * peak_size() ** 3
        / statistics.median(times[product])
        for peak, product in PEAKS.items()
        if product in times
    }


def _peak_name(peak):
    return "peak" if peak == "float32" else f"{peak} peak"


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


def excess(program, minimum):
    """`dot_flops` over a minimum; '-' on a GPU, whose programs' text lacks products."""
    return "-" if common.on_gpu() else dot_flops(program) / minimum


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
            depth = math.prod(lhs[i] for i in _sizes(_LHS_DIMS.search(line)[1]))
            total += 2 * depth * math.prod(_sizes(dot[1]))
        inner = sum(_dots_in(bodies, bodies[n]) for n in _CALLED.findall(line))
        if inner and " while(" in line:
            if not (trips := _TRIPS.search(line)):
                raise ValueError(f"unknown trip count: {line.strip()[:80]}")
            inner *= int(trips[1])
        total += inner
    return total


def _sizes(text):
    return [int(size) for size in text.split(",") if size]
