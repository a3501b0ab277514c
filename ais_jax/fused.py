"""A leapfrog trajectory as one GPU kernel, for the one-layer Bernoulli model.

XLA runs a force as kernels of one layer each, which write their activations to memory.
Here a program takes a block of chains through all the inner steps of a trajectory:
positions, momenta and hidden activations stay on chip, the weights are streamed from
the cache in bfloat16, and the widest layer goes by in tiles of pixels, each of which
becomes its share of the gradient at once. Products take bfloat16 inputs and add in
float32, as those of `precision.dot_general("bf16")` do.

The kernel is written in Pallas and lowers to Triton on CUDA. On any other platform the
same code runs in Pallas's interpreter, which is slow and meant for tests.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

MIN_TILE = 16  # the least side of a product on the matrix units


class Blocks(NamedTuple):
    """How the work is cut up; it changes the speed and not the result.

    Attributes:
        rows: chains of a program, a power of two of at least 16.
        columns: pixels of a tile of the last layer, likewise.
        widest: hidden units of a product, likewise.
        warps: of 32 threads, for each program.
        stages: tiles of weights in flight.
    """

    rows: int = 32
    columns: int = 64
    widest: int = 128
    warps: int = 8
    stages: int = 2


class Rows(NamedTuple):
    """What every chain has of its own, with leading axes [G, N].

    Attributes:
        mean: f32[..., D], of the base.
        precision: f32[..., D], inverse variances of the base.
        kick: f32[..., D], step size times scale.
        beta: f32[...], inverse temperature.
        z: f32[..., D].
        momentum: f32[..., D].
    """

    mean: Any
    precision: Any
    kick: Any
    beta: Any
    z: Any
    momentum: Any


def decoder_layers(params):
    """The layers of a `models.BernoulliNet`'s parameters, for `make_trajectory`."""
    layers = params["params"]
    hidden = [f"Dense_{i}" for i in range(len(layers) - 1)]
    return [
        (layers[name]["kernel"], layers[name]["bias"]) for name in (*hidden, "logits")
    ]


def make_trajectory(layers, x, base, blocks=None):
    """Builds the inner leapfrog steps of one chain on the path from `base` to p(x, z).

    Under `vmap`, nested in any order, the chains become the rows of one kernel; chains
    of the same example share its pixels, and chains of the same parameters share them.

    Args:
        layers: the decoder's (kernel f32[I, O], bias f32[O]), from z to the logits,
            with tanh between them.
        x: f32[X].
        base: a normal distribution with `mean` f32[D] and `scale` f32[D].
        blocks: a `Blocks`, or None for the default.

    Returns:
        (z f32[D], momentum f32[D], beta f32[], kick f32[D] or f32[], num_steps) ->
        (z, momentum), as `AnnealingPath.trajectory`.
    """
    sizes = (*(layer[0].shape[0] for layer in layers), x.shape[-1])
    weights = [_pad_layer(*layer, i == 0) for i, layer in enumerate(layers)]
    precision = 1.0 / jnp.square(base.scale)

    def trajectory(z, momentum, beta, kick, num_steps):
        if num_steps == 0:
            return z, momentum
        kick = jnp.broadcast_to(kick, z.shape)
        rows = Rows(base.mean, precision, kick, jnp.asarray(beta), z, momentum)
        run = _over_rows(sizes, num_steps, blocks or Blocks())
        lead = partial(jax.tree.map, lambda a: a[None, None])
        group = partial(jax.tree.map, lambda a: a[None])
        owner = jnp.zeros((1, 1), jnp.int32)
        return jax.tree.map(
            lambda a: a[0, 0], run(group(weights), lead(x), owner, lead(rows))
        )

    return trajectory


@cache
def _over_rows(sizes, num_steps, blocks):
    """(weights, images f32[G, E, X], owner i32[G, N], `Rows` [G, N]) -> z, momentum.

    G groups have their own weights and images, E of them; `owner` is the image of each
    of the N chains. A batch axis becomes more groups where the weights have it, and
    more chains where they are shared.
    """
    call = partial(_call, sizes, num_steps, blocks)

    @jax.custom_batching.custom_vmap
    def run(*arguments):
        return jax.lax.platform_dependent(
            *arguments, cuda=partial(call, False), default=partial(call, True)
        )

    @run.def_vmap
    def batch(size, is_batched, weights, images, owner, rows):
        own_weights = any(jax.tree.leaves(is_batched[0]))
        own_images = own_weights or is_batched[1]
        axis = 0 if own_weights else 1
        join = lambda tree, is_batched: jax.tree.map(
            lambda a, has: _join(a if has else _repeat(a, size), axis), tree, is_batched
        )
        owner = owner if is_batched[2] else _repeat(owner, size)
        if own_images and not own_weights:
            owner += images.shape[2] * jnp.arange(size)[:, None, None]
        weights = join(weights, is_batched[0]) if own_weights else weights
        images = join(images, is_batched[1]) if own_images else images
        out = run(weights, images, _join(owner, axis), join(rows, is_batched[3]))
        return tuple(_split(a, axis, size) for a in out), (True, True)

    return run


def _repeat(a, size):
    return jnp.broadcast_to(a, (size, *a.shape))


def _join(a, axis):
    """Merges the leading axis into the one at `axis` after it."""
    a = jnp.moveaxis(a, 0, axis)
    return a.reshape(*a.shape[:axis], -1, *a.shape[axis + 2 :])


def _split(a, axis, size):
    """The inverse of `_join`."""
    return jnp.moveaxis(
        a.reshape(*a.shape[:axis], size, -1, *a.shape[axis + 1 :]), axis, 0
    )


def _call(sizes, num_steps, blocks, is_interpreted, weights, images, owner, rows):
    """The kernel over all the chains: (z f32[G, N, D], momentum f32[G, N, D])."""
    num_groups, num_rows, _ = rows.z.shape
    kernel = partial(
        _kernel,
        sizes,
        num_steps,
        blocks,
        jnp.tanh if is_interpreted else plgpu.approx_tanh,
    )
    shape = jax.ShapeDtypeStruct(rows.z.shape, rows.z.dtype)
    return pl.pallas_call(
        kernel,
        out_shape=(shape, shape),
        grid=(pl.cdiv(num_rows, blocks.rows), num_groups),
        interpret=is_interpreted,
        compiler_params=plgpu.CompilerParams(
            num_warps=blocks.warps, num_stages=blocks.stages
        ),
        name="leapfrog_trajectory",
    )(weights, images, owner, rows)


def _kernel(sizes, num_steps, blocks, tanh, weights, images, owner, rows, *out):
    """Takes a block of chains through the inner steps."""
    group = pl.program_id(1)
    numbers = pl.program_id(0) * blocks.rows + jnp.arange(blocks.rows)
    exists = numbers < owner.shape[1]
    coordinates = jnp.arange(_power_of_two(sizes[0]))
    at = (group, numbers[:, None], coordinates[None, :])
    mask = exists[:, None] & (coordinates < sizes[0])[None, :]
    load = lambda ref: plgpu.load(ref.at[at], mask=mask, other=0.0)
    one = lambda ref: plgpu.load(ref.at[group, numbers], mask=exists, other=0)
    beta = one(rows.beta)[:, None]
    pixels = partial(_load_pixels, images, group, one(owner), sizes[-1])
    gradient = partial(_gradient, sizes, blocks, tanh, weights)

    def step(i, carry):
        z, momentum = carry
        here = group + i // num_steps  # group, but not hoisted: see `_gradient`
        kick = load(rows.kick)
        z = z + kick * momentum
        base = load(rows.precision) * (load(rows.mean) - z)
        force = (1.0 - beta) * base + beta * (gradient(here, pixels, z) - z)
        return z, momentum + kick * force

    end = jax.lax.fori_loop(0, num_steps, step, (load(rows.z), load(rows.momentum)))
    for ref, value in zip(out, end):
        plgpu.store(ref.at[at], value, mask=mask)


def _load_pixels(images, group, owner, data_size, columns):
    at = (group, owner[:, None], columns[None, :])
    mask = jnp.broadcast_to((columns < data_size)[None, :], (len(owner), len(columns)))
    return plgpu.load(images.at[at], mask=mask, other=0.0)


def _gradient(sizes, blocks, tanh, weights, group, pixels, z):
    """Gradient of log p(x|z) in z for a block of chains: f32[rows, D].

    `group` should depend on the step. Otherwise Triton loads the hidden layers' weights
    before the loop over the steps and keeps them all on chip, where they do not fit.
    """
    pieces = [[(0, _power_of_two(sizes[0]))]]
    pieces += [_pieces(size, blocks.widest) for size in sizes[1:-1]]
    hidden, slopes = [z.astype(jnp.bfloat16)], []
    for (kernel, bias), above, below in zip(weights, pieces, pieces[1:]):
        outputs = [
            tanh(_affine(kernel, bias, group, hidden, above, piece)) for piece in below
        ]
        hidden = [h.astype(jnp.bfloat16) for h in outputs]
        slopes.append([(1.0 - h * h).astype(jnp.bfloat16) for h in outputs])
    back = _last_layer(
        sizes, blocks, tanh, weights[-1], group, pixels, hidden, pieces[-1]
    )
    layers = list(zip(weights, pieces, pieces[1:], slopes))
    for (kernel, _), above, below, slope in reversed(layers):
        inner = [(b * s).astype(jnp.bfloat16) for b, s in zip(back, slope)]
        back = [
            sum(
                _dot_transposed(b, kernel[(group, *_block(i, j))])
                for b, j in zip(inner, below)
            )
            for i in above
        ]
    return back[0]


def _last_layer(sizes, blocks, tanh, layer, group, pixels, hidden, pieces):
    """Gradient in the last hidden layer, by tiles of pixels: pieces of f32[rows, H]."""
    kernel, bias = layer

    def add_tile(start, width, back):
        piece = (start, width)
        logits = _affine(kernel, bias, group, hidden, pieces, piece)
        mean = 0.5 + 0.5 * tanh(0.5 * logits)
        residual = pixels(start + jnp.arange(width)) - mean
        residual = residual.astype(jnp.bfloat16)
        return [
            b + _dot_transposed(residual, kernel[(group, *_block(i, piece))])
            for b, i in zip(back, pieces)
        ]

    rows = hidden[0].shape[0]
    back = [jnp.zeros((rows, width), jnp.float32) for _, width in pieces]
    whole = sizes[-1] // blocks.columns
    if whole:
        add = lambda i, back: add_tile(i * blocks.columns, blocks.columns, back)
        back = jax.lax.fori_loop(0, whole, add, back)
    done = whole * blocks.columns
    for start, width in _pieces(sizes[-1] - done, blocks.columns):
        back = add_tile(done + start, width, back)
    return back


def _affine(kernel, bias, group, inputs, above, piece):
    """A piece of a layer's outputs from all the pieces of its inputs."""
    total = bias[group, pl.ds(*piece)][None, :]
    for value, i in zip(inputs, above):
        total += _dot(value, kernel[(group, *_block(i, piece))])
    return total


def _block(rows, columns):
    return pl.ds(*rows), pl.ds(*columns)


def _dot(a, b):
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _dot_transposed(a, b):
    contract = (((1,), (1,)), ((), ()))
    return jax.lax.dot_general(a, b, contract, preferred_element_type=jnp.float32)


def _power_of_two(size):
    return max(MIN_TILE, pl.next_power_of_2(size))


def _pieces(size, widest):
    """Cuts a size, rounded up to 16s, into powers of two: [(start, width), ...]."""
    pieces, start = [], 0
    size = pl.cdiv(size, MIN_TILE) * MIN_TILE
    while start < size:
        width = min(widest, 1 << ((size - start).bit_length() - 1))
        pieces.append((start, width))
        start += width
    return pieces


def _pad_layer(kernel, bias, is_first):
    """A layer with its sizes filled up by zeros, its kernel in bfloat16."""
    fill = lambda size: pl.cdiv(size, MIN_TILE) * MIN_TILE
    rows, columns = kernel.shape
    more = (_power_of_two(rows) if is_first else fill(rows)) - rows
    wider = fill(columns) - columns
    kernel = jnp.pad(kernel, ((0, more), (0, wider))).astype(jnp.bfloat16)
    return kernel, jnp.pad(bias, (0, wider))
