"""The same work by others: AIS on BlackJAX's HMC, and the authors' step in PyTorch."""

import importlib.util
import itertools
import os
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.scipy.stats import norm

from ais_jax import schedules
from ais_jax.annealing.path import AnnealingPath
from ais_jax.annealing.proposals import WeightedSamples
from ais_jax.batching import chain_keys
from ais_jax.models.latent import posterior_path
from benchmarks import launched, runner

TORCH_THREADS = 2  # on a CPU
NAMES = (
    *("BlackJAX", "BlackJAX, our densities"),
    *("PyTorch", "PyTorch, bf16 autocast"),
)


def installed(name):
    """Whether a peer's package can be imported."""
    return importlib.util.find_spec(name) is not None


def ratios(times, names):
    """Times of peers over ours, on one device and as launched: columns of a row."""
    against = {"ours": "ours"}
    against |= {
        f"ours, {name}": name for name in (launched.LAUNCHED, launched.AUTOMATIC)
    }
    return {
        f"{name} / {column}": runner.ratio(times, name, ours)
        for name in names
        for column, ours in against.items()
    }


def blackjax_estimators(estimate, work, num_temperatures):
    """Our AIS estimator with its chains run by BlackJAX's HMC kernel.

    Args:
        estimate: the `Estimator` to copy.
        work: a `common.Workload`.
        num_temperatures: T.

    Returns:
        dict of name to `Estimator`: with log-densities as JAX's users write them, and
        with ours, whose derivatives are written by hand. Empty without BlackJAX.
    """
    if not installed("blackjax"):
        return {}
    paths = {"BlackJAX": plain_path, "BlackJAX, our densities": posterior_path}
    make = partial(_blackjax_estimator, estimate, work, num_temperatures)
    return {name: make(path) for name, path in paths.items()}


def plain_path(model, theta, phi, x):
    """`posterior_path` of a model of one layer, by SciPy's and Optax's densities."""
    q = model.proposal(phi, x)
    *hidden, output = theta[0]["params"].values()
    apply = lambda layer, z: z @ layer["kernel"] + layer["bias"]
    log_normal = lambda *args: jnp.sum(norm.logpdf(*args))

    def log_joint(z):
        log_prior = log_normal(z)
        for layer in hidden:
            z = jnp.tanh(apply(layer, z))
        losses = optax.sigmoid_binary_cross_entropy(apply(output, z), x)
        return log_prior - jnp.sum(losses)

    log_base = lambda z: log_normal(z, q.mean, q.scale)
    return AnnealingPath(q.sample, log_base, log_joint)


def _blackjax_estimator(estimate, work, num_temperatures, make_path):
    """The path, schedule, step sizes and weights are ours.

    The kernel is built for each temperature from the mixed log-density, as BlackJAX's
    users do, so every temperature starts with an evaluation of its own.
    """
    import blackjax

    betas = jnp.asarray(schedules.linear(num_temperatures))
    model = work.model()

    def chain(key, path, step_sizes):
        base_key, move_key = jax.random.split(key)

        def body(carry, xs):
            z, log_w = carry
            key, delta, beta, step_size = xs
            log_w += delta * (path.log_target(z) - path.log_base(z))
            kernel = blackjax.hmc(
                lambda z: (1.0 - beta) * path.log_base(z) + beta * path.log_target(z),
                step_size,
                jnp.ones_like(z),
                work.num_leapfrog,
            )
            state, info = kernel.step(key, kernel.init(z))
            return (state.position, log_w), info.acceptance_rate

        keys = jax.random.split(move_key, num_temperatures)
        xs = (keys, jnp.diff(betas), betas[1:], step_sizes)
        start = (path.sample_base(base_key), jnp.zeros(()))
        (z, log_w), accept_prob = jax.lax.scan(body, start, xs)
        return z, log_w, accept_prob

    def sample(key, theta, phi, x, step_sizes):
        path = make_path(model, theta, phi, x)
        keys = chain_keys(key, estimate.num_samples)
        run = lambda key: chain(key, path, step_sizes)
        z, log_w, accept_prob = jax.vmap(run)(keys)
        samples = WeightedSamples(z, log_w, jnp.mean(accept_prob, axis=0))
        return jax.lax.stop_gradient(samples)

    return estimate._replace(sample=sample)


def torch_step(work, num_samples, num_temperatures, autocast=False):
    """The authors' training step in plain PyTorch: a function of no arguments.

    As their code does, it computes probabilities, binary cross entropy on them and
    L + 1 gradients a move, with batch and chains in one axis, by Adam at eps 1e-4. Its
    OpenMP threads wait asleep: where other programs take the cores, threads that spin
    make a step up to a hundred times slower, and the comparison would say nothing.
    On a machine with a GPU it runs there, with TF32 where our force is coarser than
    float32.

    Args:
        work: a `common.Workload`.
        num_samples: K.
        num_temperatures: T, each with a move.
        autocast: whether the networks' products are bfloat16's.

    Returns:
        The function, which makes one step and waits for it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
    import torch

    torch.set_num_threads(TORCH_THREADS)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest" if work.force == "float32" else "high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder, decoder = (
        net.to(device) for net in (_torch_encoder(work), _torch_decoder(work))
    )
    if autocast:
        for net in encoder, decoder:
            net.forward = _autocast(net.forward, device)
    adams = [
        torch.optim.Adam(net.parameters(), lr=1e-3, eps=1e-4)
        for net in (decoder, encoder)
    ]
    betas = torch.linspace(0.0, 1.0, num_temperatures + 1, device=device)
    step_sizes = torch.full((num_temperatures,), 0.1, device=device)
    intensities = torch.full((work.batch, work.data_size), 0.3, device=device)

    def step():
        x = torch.bernoulli(intensities)
        with torch.no_grad():
            mean, log_scale = encoder(x)
        repeat = lambda a: a.repeat_interleave(num_samples, 0)
        chains = [repeat(a) for a in (x, mean, log_scale)]
        z, log_w, accept = _torch_anneal(
            decoder, chains, betas, step_sizes, work.num_leapfrog
        )
        weights = torch.softmax(log_w.view(work.batch, num_samples), 1).view(-1)
        loss = -(weights * _torch_log_joint(decoder, chains[0], z)).sum() / work.batch
        _torch_descend(adams[0], loss)
        mean, log_scale = encoder(x)
        z = mean + log_scale.exp() * torch.randn_like(mean)
        elbo = _torch_log_joint(decoder, x, z) - _torch_normal(z, mean, log_scale)
        _torch_descend(adams[1], -elbo.mean())
        factor = torch.where(accept >= 0.6, 1.002, 0.998)
        step_sizes.mul_(factor).clamp_(0.001, 0.3)
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def _autocast(forward, device):
    """`forward` with bfloat16 products, and float32 results."""
    import torch

    def call(x):
        with torch.autocast(device, torch.bfloat16):
            result = forward(x)
        if isinstance(result, tuple):
            return tuple(a.float() for a in result)
        return result.float()

    return call


def _torch_encoder(work):
    import torch
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(*_torch_body((work.data_size, *work.widths)))
            self.mean = nn.Linear(work.widths[-1], work.latent)
            self.log_scale = nn.Linear(work.widths[-1], work.latent)

        def forward(self, x) -> tuple[torch.Tensor, torch.Tensor]:
            h = self.body(x)
            return self.mean(h), self.log_scale(h)

    return Encoder()


def _torch_decoder(work):
    from torch import nn

    hidden = (work.latent, *work.widths[::-1])
    last = nn.Linear(hidden[-1], work.data_size)
    return nn.Sequential(*_torch_body(hidden), last, nn.Sigmoid())


def _torch_body(sizes):
    from torch import nn

    pairs = itertools.pairwise(sizes)
    return [layer for a, b in pairs for layer in (nn.Linear(a, b), nn.Tanh())]


def _torch_normal(z, mean, log_scale):
    import torch

    square = ((z - mean) / log_scale.exp()) ** 2
    return torch.sum(-0.5 * square - log_scale - 0.9189385332046727, 1)


def _torch_log_joint(decoder, x, z):
    import torch
    from torch.nn import functional

    prior = _torch_normal(z, torch.zeros(()), torch.zeros(()))
    cross_entropy = functional.binary_cross_entropy(decoder(z), x, reduction="none")
    return prior - cross_entropy.sum(1)


def _torch_anneal(decoder, chains, betas, step_sizes, num_leapfrog):
    """Annealed chains: (z, log_w, acceptance at each temperature)."""
    import torch

    x, mean, log_scale = chains
    log_q = lambda z: _torch_normal(z, mean, log_scale)
    log_p = lambda z: _torch_log_joint(decoder, x, z)
    z = mean + log_scale.exp() * torch.randn_like(mean)
    log_w, accept = torch.zeros(len(x), device=x.device), []
    for t, step_size in enumerate(step_sizes):
        with torch.no_grad():
            log_w = log_w + (betas[t + 1] - betas[t]) * (log_p(z) - log_q(z))
        beta = betas[t + 1]
        energy = lambda z, beta=beta: -((1 - beta) * log_q(z) + beta * log_p(z))
        z, accept_prob = _torch_hmc(energy, z, step_size, num_leapfrog)
        accept.append(accept_prob.mean())
    return z, log_w, torch.stack(accept)


def _torch_hmc(energy, z, step_size, num_leapfrog):
    """One HMC move with L + 1 gradients and two energies."""
    import torch

    def gradient(z):
        z = z.detach().requires_grad_()
        return torch.autograd.grad(energy(z).sum(), z)[0]

    start, momentum = z, torch.randn_like(z)
    half = momentum - 0.5 * step_size * gradient(z)
    for i in range(num_leapfrog):
        z = z + step_size * half
        kick = step_size if i < num_leapfrog - 1 else 0.5 * step_size
        half = half - kick * gradient(z)
    with torch.no_grad():
        kinetic = 0.5 * ((half**2).sum(1) - (momentum**2).sum(1))
        change = energy(z) - energy(start) + kinetic
        accept_prob = torch.exp(-change).clamp(max=1.0)
        is_accepted = torch.rand_like(accept_prob) < accept_prob
        return torch.where(is_accepted[:, None], z, start), accept_prob


def _torch_descend(adam, loss):
    adam.zero_grad()
    loss.backward()
    adam.step()
