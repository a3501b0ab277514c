"""What the benchmarks share: the workload, timing, FLOPs, tables and JSON."""

import argparse
import datetime
import gc
import importlib.metadata
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ais_jax import adaptation, estimators, networks, optimizers, training
from ais_jax.batching import chain_keys, map_examples
from configs.default import get_config
from experiments.run import build
from experiments.run.settings import resolve

RESULTS = Path(__file__).parent / "results"
GRID = ((1, 5), (1, 11), (5, 5), (5, 11), (50, 5), (50, 11))  # (K, T) of the paper
QUICK_GRID = ((3, 2),)
FORCES = {  # of HMC
    "float32": {},
    "tf32": {"force_precision": "tf32"},
    "bf16": {"force_precision": "bf16"},
}
PEAKS = {"float32": "matrix product", "tf32": "TF32 product", "bf16": "bf16 product"}


class Workload(NamedTuple):
    """One model and batch: the paper's, or a small one for smoke tests.

    Attributes:
        batch: B.
        data_size: X.
        latent: D.
        widths: hidden widths of the encoder.
        num_leapfrog: L.
        force: of `FORCES`.
    """

    batch: int = 128
    data_size: int = 784
    latent: int = 50
    widths: tuple = (200, 200)
    num_leapfrog: int = 5
    force: str = "float32"

    def model(self):
        """The `LatentVariableModel`."""
        return networks.bernoulli_model(
            self.data_size,
            latent_sizes=(self.latent,),
            widths=(self.widths,),
            **FORCES[self.force],
        )

    def images(self):
        """Random binary images f32[B, X]."""
        shape = (self.batch, self.data_size)
        return jax.random.bernoulli(jax.random.key(1), 0.3, shape).astype(jnp.float32)

    def pass_flops(self):
        """Matrix-product FLOPs of one pass forward and backward in z of the decoder."""
        sizes = (self.latent, *self.widths[::-1], self.data_size)
        return 2 * 2 * sum(a * b for a, b in itertools.pairwise(sizes))

    def minimum_flops(self, num_samples, num_moves):
        """The analytic minimum of sampling: 1 + L*M passes for every chain."""
        passes = 1 + self.num_leapfrog * num_moves
        return passes * num_samples * self.batch * self.pass_flops()


SMALL = Workload(batch=4, data_size=12, latent=3, widths=(8, 6), num_leapfrog=2)


def workload(args):
    """The paper's workload, or the small one with --quick."""
    return SMALL if args.quick else Workload()


def on_gpu():
    """Whether the benchmarks run on a GPU."""
    return jax.default_backend() == "gpu"


def forces(args):
    """The forces to measure: all on a GPU, elsewhere float32; two in smoke tests."""
    if args.quick:
        return "float32", "bf16"
    return tuple(FORCES) if on_gpu() else ("float32",)


def estimator(work, num_samples, num_temperatures):
    """The paper's AIS estimator: unit mass, a move at every temperature."""
    return estimators.ais(
        work.model(),
        num_samples=num_samples,
        num_temperatures=num_temperatures,
        num_leapfrog=work.num_leapfrog,
    )


def block_size(num_samples):
    """The launcher's own choice of examples to sample at a time."""
    return build.block_size(resolve(get_config()), Workload().data_size, num_samples)


def make_sampler(estimate, block):
    """Builds the sampler: (key, theta, phi, x f32[B, X], step_sizes) -> samples."""

    def sample(key, theta, phi, x, step_sizes):
        keys = chain_keys(key, len(x))
        one = lambda key, x: estimate.sample(key, theta, phi, x, step_sizes)
        return map_examples(one, keys, x, block_size=block)

    return sample


def sampler_arguments(work, num_moves):
    """Arguments of `make_sampler`'s function."""
    theta, phi = work.model().init(jax.random.key(0))
    step_sizes = jnp.full((num_moves,), 0.1)
    return jax.random.key(2), theta, phi, work.images(), step_sizes


def make_step(estimate, block):
    """The training step as the launcher makes it, images drawn at each visit."""
    rule = adaptation.StepSizeRule()
    return training.make_train_step(estimate, rule, binarize=True, block_size=block)


def step_arguments(work, estimate):
    """Arguments of `make_step`'s function."""
    optimizer = optimizers.make("constant", 1)
    init = lambda key: training.init(key, work.model(), estimate, optimizer, 0.1)
    state = jax.jit(init)(jax.random.key(0))
    return state, jax.random.key(2), jnp.float32(1e-3), work.images()


def replicated_step(work, num_samples, num_temperatures, replicates):
    """A training step of several replicates in one program, ready to call."""
    estimate = estimator(work, num_samples, num_temperatures)
    step = jax.vmap(make_step(estimate, block_size(num_samples)), (0, 0, None, None))
    keys = jax.random.split(jax.random.key(0), replicates)
    optimizer = optimizers.make("constant", 1)
    init = lambda key: training.init(key, work.model(), estimate, optimizer, 0.1)
    arguments = jax.vmap(init)(keys), keys, jnp.float32(1e-3), work.images()
    return compiled(step, *arguments)[0]


def compiled(function, *args):
    """Compiles a function: (callable of no arguments that waits, executable)."""
    program = jax.jit(function).lower(*args).compile()
    return partial(_wait, program, args), program


def _wait(program, args):
    return jax.block_until_ready(program(*args))


def matrix_products():
    """The square products that stand for the machine's peaks, by their names in PEAKS.

    Elsewhere than on a GPU all precisions run at the rate of float32, the only one.
    """
    names = PEAKS if on_gpu() else ("float32",)
    return {PEAKS[name]: _matrix_product(name) for name in names}


def peak_size():
    """The size of the square products."""
    return 8192 if on_gpu() else 2048


def _matrix_product(name):
    dtype = jnp.bfloat16 if name == "bf16" else jnp.float32
    a = jax.random.normal(jax.random.key(0), (peak_size(),) * 2, dtype)
    full, fast = jax.lax.Precision.HIGHEST, jax.lax.Precision.DEFAULT
    product = partial(
        jnp.matmul,
        precision=full if name == "float32" else fast,  # fast is TF32 on a GPU
        preferred_element_type=jnp.float32,
    )
    return compiled(product, a, a)[0]


def interleave(functions, seconds):
    """Times functions by turns, so that all see the same machine.

    Args:
        functions: dict of name to function of no arguments; each is called once before.
        seconds: rounds go on for so long, at least 3 of them; 0 makes one round.

    Returns:
        dict of name to list of seconds, one for each round.
    """
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    gc.collect()
    started = time.perf_counter()
    rounds = 3 if seconds else 1
    while rounds > 0 or time.perf_counter() - started < seconds:
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
        rounds -= 1
    return times


def ratio(times, name, base):
    """Median over the rounds of the time of `name` over that of `base`."""
    return statistics.median(a / b for a, b in zip(times[name], times[base]))


def against_peer(times, name, ours="ours"):
    """`ratio` of a peer's times to ours, or '-' where one of them was not measured."""
    return ratio(times, name, ours) if {name, ours} <= times.keys() else "-"


def peak_shares(times, name, flops):
    """Median rate of `name` as a share of each peak in its round: columns of a row.

    The columns of another than 'ours' bear its name; none where it was not measured.
    """
    whole = 2 * peak_size() ** 3
    which = "" if name == "ours" else f", {name}"
    return {
        f"share of {_peak_name(peak)}{which}": flops
        / whole
        / ratio(times, name, product)
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


class Remote:
    """A function of no arguments in a process of its own, called from this one.

    Args:
        build: module-level function that builds it there.
        *args: of `build`.
    """

    def __init__(self, build, *args):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, build, args))
        self.process.start()
        theirs.close()

    def __call__(self):
        """Runs it once."""
        self.pipe.send(True)
        return self.pipe.recv()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pipe.close()
        self.process.join()


def _serve(pipe, build, args):
    function = build(*args)
    try:
        while pipe.recv():
            function()
            pipe.send(None)
    except EOFError:
        pass


def parse(description, **options):
    """Parses a script's flags: --quick, --seconds, --output and its own.

    Args:
        description: of the script.
        **options: name to help of further flags without a value.

    Returns:
        The namespace; `output` is None where nothing is to be written.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a smoke test")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of measuring for each row"
    )
    parser.add_argument("--output", type=Path, help="JSON file to write")
    for name, text in options.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, action="store_true", help=text)
    args = parser.parse_args()
    if args.quick:
        args.seconds = 0.0
    return args


def collect(rows):
    """A list of rows, each printed to stderr as soon as it is measured."""
    done = []
    for row in rows:
        print(*(f"{k}: {_cell(v)};" for k, v in row.items()), file=sys.stderr)
        done.append(row)
    return done


def report(name, args, tables):
    """Prints tables and writes them as JSON with what they were measured on.

    Args:
        name: of the benchmark.
        args: of `parse`.
        tables: dict of title to list of rows, each a dict of column to value.
    """
    environment = describe()
    print(f"{name}: commit {environment['commit']}, {environment['device']}")
    for title, rows in tables.items():
        print(f"\n{title}\n{markdown(rows)}")
    output = args.output
    if output is None and not args.quick:
        output = RESULTS / f"{name}.json"
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        data = {"environment": environment, "tables": tables}
        output.write_text(json.dumps(data, indent=1, default=float) + "\n")


def markdown(rows):
    """A table of rows that share their columns, in Markdown."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row[column]) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def describe():
    """What the numbers were measured on: a dict of names to strings."""
    git = ["git", "-C", str(Path(__file__).parent)]
    run: Any = partial(subprocess.run, capture_output=True, text=True)
    commit = run([*git, "rev-parse", "--short", "HEAD"]).stdout.strip() or "unknown"
    if run([*git, "status", "--porcelain", "--", "../ais_jax"]).stdout.strip():
        commit += " with changes to ais_jax"
    device = jax.devices()[0]
    return {
        "commit": commit,
        "date": datetime.date.today().strftime("%Y-%m"),
        "device": f"{os.cpu_count()} CPU cores, {platform.machine()}"
        if device.platform == "cpu"
        else device.device_kind,
        "python": platform.python_version(),
        **{name: _version(name) for name in ("jax", "blackjax", "torch")},
    }


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
