"""The fused kernel: the plain trajectory's numbers, under every batching, and on CUDA.

Off a GPU it runs in Pallas's interpreter; on one, the same tests run the kernel itself.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ais_jax import adaptation, estimators, optimizers, training
from ais_jax.fused import Blocks, decoder_layers, make_trajectory
from ais_jax.models import Distribution, bernoulli_model, posterior_path, prior_path
from ais_jax.path import force_at

CUSTOM_CALL = "__gpu$xla.gpu.triton"
SHAPES = {  # pixels, latents, hidden widths
    "even": (128, 16, (32,)),
    "odd": (131, 5, (20, 3)),
    "few": (7, 2, (4,)),
    "linear": (40, 3, ()),
}
BF16 = {"force_precision": "bf16"}
KERNEL = {**BF16, "kernel": "pallas"}


def make(data_size, latent, widths, **settings):
    return bernoulli_model(
        data_size, latent_sizes=(latent,), widths=(widths[::-1],), **settings
    )


def start(shape, key=0):
    """Parameters far from linear, an image, a position and a momentum."""
    model = make(*SHAPES[shape])
    keys = jax.random.split(jax.random.key(key), 4)
    theta, phi = model.init(keys[0])
    theta = jax.tree.map(lambda a: 2.0 * a + 0.1, theta)
    x = model.simulate(keys[1], theta)[0]
    z, momentum = jax.random.normal(keys[2], (2, SHAPES[shape][1]))
    return theta, phi, x, z, momentum


def plain_steps(path, z, momentum, beta, kick, num_steps):
    for _ in range(num_steps):
        z = z + kick * momentum
        momentum = momentum + kick * force_at(path, beta, z)
    return z, momentum


def at_rest(step, z):
    """The force at z on the target: one kick of 1 without momentum."""
    return step(z, jnp.zeros_like(z), 1.0, jnp.ones(()), 1)[1]


def exact_gradient(theta, x, z):
    """Gradient of log p(x, z) in z in float64."""
    double = lambda a: np.asarray(a, np.float64)
    layers = [
        (double(layer["kernel"]), double(layer["bias"]))
        for _, layer in sorted(theta[0]["params"].items())
    ]
    hidden, slopes = double(z), []
    for kernel, bias in layers[:-1]:
        hidden = np.tanh(hidden @ kernel + bias)
        slopes.append(1.0 - hidden**2)
    kernel, bias = layers[-1]
    back = (double(x) - 1.0 / (1.0 + np.exp(-hidden @ kernel - bias))) @ kernel.T
    for (kernel, _), slope in zip(layers[-2::-1], slopes[::-1]):
        back = (back * slope) @ kernel.T
    return back - double(z)


@pytest.mark.parametrize("shape", SHAPES)
def test_its_force_is_as_near_to_float64_as_the_plain_one(shape):
    theta, phi, x, *_ = start(shape)
    zs = jax.random.normal(jax.random.key(9), (64, SHAPES[shape][1]))
    exact = np.stack([exact_gradient(theta, x, z) for z in zs])
    errors = {}
    for name, settings in {"plain": BF16, "fused": KERNEL}.items():
        path = posterior_path(make(*SHAPES[shape], **settings), theta, phi, x)
        step = path.trajectory or partial(plain_steps, path)
        force = partial(at_rest, step)
        errors[name] = np.asarray(jax.jit(jax.vmap(force))(zs), np.float64) - exact
    spread = np.std(exact)
    rms = {name: np.sqrt(np.mean(e**2)) / spread for name, e in errors.items()}
    assert 1e-4 < rms["plain"] < 2e-2
    assert 1e-4 < rms["fused"] < 1.25 * rms["plain"]


@pytest.mark.parametrize("base", [posterior_path, prior_path])
@pytest.mark.parametrize("preconditioner", ["unit", "encoder"])
def test_its_trajectory_is_the_plain_one_to_bfloat16_rounding(base, preconditioner):
    theta, phi, x, z, momentum = start("odd")
    plain, fused = (
        base(make(*SHAPES["odd"], **settings), theta, phi, x, preconditioner)
        for settings in (BF16, KERNEL)
    )
    arguments = z, momentum, 0.6, 0.05 * fused.scale, 4
    expected = plain_steps(plain, *arguments)
    for found, wanted, before in zip(
        fused.trajectory(*arguments), expected, (z, momentum)
    ):
        moved = np.max(np.abs(wanted - before))
        assert moved > 0.1
        np.testing.assert_allclose(found, wanted, atol=2e-2 * moved)


def test_no_inner_step_leaves_everything_as_it_is():
    theta, phi, x, z, momentum = start("few")
    path = posterior_path(make(*SHAPES["few"], **KERNEL), theta, phi, x)
    assert path.trajectory(z, momentum, 0.5, 0.1, 0) == (z, momentum)


def test_how_the_work_is_cut_does_not_matter():
    theta, _, x, z, momentum = start("odd")
    layers = decoder_layers(theta[0])
    base = Distribution(None, None, jnp.zeros(5), jnp.ones(5))
    found = [
        make_trajectory(layers, x, base, blocks)(z, momentum, 0.5, 0.05, 3)
        for blocks in (Blocks(), Blocks(rows=16, columns=32, widest=16))
    ]
    np.testing.assert_allclose(*(np.stack(f) for f in found), atol=1e-2)


NUM = {"replicate": 2, "example": 3, "chain": 5}
ORDERS = [
    ("replicate", "example", "chain"),
    ("example", "chain", "replicate"),
    ("chain", "replicate", "example"),
]
HAS_AXIS = {  # of theta, phi, x, z, momentum, beta and step size
    "replicate": (0, 0, None, 0, 0, None, 0),
    "example": (None, None, 0, 0, 0, None, None),
    "chain": (None, None, None, 0, 0, 0, None),
}


def batched_start(order):
    """Arguments of `advance` with the axes in this order, outermost first."""
    parameters = [start("few", key)[:2] for key in range(NUM["replicate"])]
    theta, phi = jax.tree.map(lambda *a: jnp.stack(a), *parameters)
    draw = lambda key, *tail: jax.random.normal(
        jax.random.key(key), (*(NUM[name] for name in order), *tail)
    )
    x = (jax.random.normal(jax.random.key(1), (NUM["example"], 7)) > 0.0).astype(float)
    betas, step_sizes = jnp.linspace(0.0, 1.0, NUM["chain"]), jnp.array([0.1, 0.2])
    return theta, phi, x, draw(2, 2), draw(3, 2), betas, step_sizes


def advance(theta, phi, x, z, momentum, beta, step_size):
    path = posterior_path(make(*SHAPES["few"], **KERNEL), theta, phi, x, "encoder")
    return path.trajectory(z, momentum, beta, step_size * path.scale, 2)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_nested_batches_equal_single_chains(order):
    arguments = batched_start(order)
    function = advance
    for name in reversed(order):
        function = jax.vmap(function, HAS_AXIS[name])
    together = np.stack(jax.jit(function)(*arguments))
    single = jax.jit(advance)
    for index in np.ndindex(*together.shape[1:-1]):
        at = dict(zip(order, index))
        picked = (
            jax.tree.map(lambda a, i=at[name]: a[i], own)
            for own, name in zip(arguments[:3], ("replicate", "replicate", "example"))
        )
        z, momentum, betas, step_sizes = arguments[3:]
        moving = z[index], momentum[index]
        alone = single(
            *picked, *moving, betas[at["chain"]], step_sizes[at["replicate"]]
        )
        np.testing.assert_allclose(
            together[:, *index], np.stack(alone), rtol=1e-4, atol=1e-4
        )


def test_blocks_of_examples_in_a_loop_equal_one_batch():
    theta, phi, *_ = start("few")
    _, _, x, z, momentum, _, _ = batched_start(("replicate", "example", "chain"))
    one = lambda x, z, momentum: jax.vmap(
        lambda z, momentum: advance(theta, phi, x, z, momentum, 0.4, 0.1)
    )(z, momentum)
    arguments = x, z[0], momentum[0]
    together = training.map_examples(one, *arguments)
    in_blocks = training.map_examples(one, *arguments, block_size=2)
    np.testing.assert_allclose(*map(np.stack, (together, in_blocks)), atol=1e-5)


def cuda_text(function, *arguments):
    """The program as it is lowered for CUDA, also on a machine without it."""
    exported = jax.export.export(
        jax.jit(function),
        platforms=["cuda"],
        disabled_checks=[jax.export.DisabledSafetyCheck.custom_call(CUSTOM_CALL)],
    )
    return exported(*arguments).mlir_module()


@pytest.mark.skipif(
    jax.__version_info__ > (0, 10, 2) and jax.default_backend() != "gpu",
    reason="newer versions of JAX compile Triton, by the CUDA plugin, as they lower",
)
def test_a_training_step_lowers_for_cuda_with_one_kernel_a_move():
    model = make(784, 50, (200, 200), **KERNEL)
    estimator = estimators.make("ais", model, num_samples=5, num_temperatures=3)
    optimizer = optimizers.make("constant", 1)
    init = lambda key: training.init(key, model, estimator, optimizer, 0.1)
    keys = jax.random.split(jax.random.key(0), 2)
    step = training.make_train_step(estimator, adaptation.StepSizeRule(), binarize=True)
    shared = jnp.float32(1e-3), jnp.zeros((16, 784))
    lone = cuda_text(step, init(keys[0]), keys[0], *shared)
    both = cuda_text(
        jax.vmap(step, (0, 0, None, None)), jax.vmap(init)(keys), keys, *shared
    )
    for text, num_groups in ((lone, 1), (both, 2)):
        assert text.count(f"@{CUSTOM_CALL}") == 1
        assert "grid_x = 3 " in text  # 5 chains of 16 examples, 32 in a program
        assert f"grid_y = {num_groups} " in text
