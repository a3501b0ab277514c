"""Trains and evaluates every row of a table, each as `experiments.main` would.

python -m experiments.sweep --config=configs/table1.py:digits --workdir=runs/digits

The workdir gets one folder for each variant. Finished variants are skipped, unfinished
ones resumed.
"""

import contextlib
import re
import signal
from pathlib import Path

from absl import flags

from experiments import cli
from experiments import main as launcher
from experiments.cli import InputError


def main(config_flag):
    """Runs, or lists, the variants that the flags ask for."""
    args = flags.FLAGS
    config = cli.load_config(config_flag)
    found = select(config, args.shard, args.only)
    cli.use_cores([variant.config for variant in found])
    if args.dry_run:
        cli.use_compile_cache(args.compile_cache)
        print(listing(config, found, args.workdir))
    else:
        run(found, args.workdir, args.compile_cache)


def select(config, shard="1/1", only=()):
    """The variants that this process is to run.

    Args:
        config: a ConfigDict of `configs/table1.py`'s shape.
        shard: 'i/n'.
        only: names of variants, or none for all of them.

    Returns:
        List of `variants.Variant`.

    Raises:
        InputError: for a bad setting, shard or name.
    """
    from ais_jax.registry import unknown_name
    from experiments import variants

    index, count = _parse_shard(shard)
    found = variants.expand(config)
    names = [variant.name for variant in found]
    for name in only:
        if name not in names:
            raise InputError(unknown_name("only", name, names))
    found = [v for v in found if v.name in only] if only else found
    return variants.shard(found, index, count)


def run(found, workdir, compile_cache=None):
    """Trains and evaluates variants one after the other, each in its own folder.

    Finished ones are skipped, unfinished ones go on where they were.

    Args:
        found: list of `variants.Variant`.
        workdir: the sweep's folder.
        compile_cache: folder of JAX's persistent compilation cache, or None.

    Raises:
        InputError: for bad input, before any long work.
        runs.Stopped: after a signal; what was done is saved.
        cli.Ended: at the end, with status 1, where variants failed.
    """
    _check_all(found, workdir)
    failed = []
    with _signals():
        for number, variant in enumerate(found, 1):
            folder = Path(workdir) / variant.name
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder) as is_free:
                state = status(variant, folder) if is_free else "in use elsewhere"
                print(f"[{number}/{len(found)}] {variant.name}: {state}", flush=True)
                if state in ("new", "unfinished", "failed"):
                    failed += _run_one(variant, folder, compile_cache)
    if failed:
        names = ", ".join(failed)
        raise cli.Ended(f"{len(failed)} of {len(found)} variants failed: {names}", 1)
    print(
        f"Done. The tables: python -m experiments.report {workdir} "
        f"--out={Path(workdir) / 'report'}"
    )


def status(variant, folder):
    """How far a variant is.

    Args:
        variant: a `variants.Variant`.
        folder: its folder, which need not exist.

    Returns:
        'new', 'unfinished', 'failed' or 'finished'.

    Raises:
        InputError: where the folder holds a run of another config.
    """
    from experiments import runs
    from experiments.metrics import read_json

    paths = [folder / f"{name}.json" for name in ("config", "results", "variant")]
    saved, results, identity = [read_json(p) if p.exists() else None for p in paths]
    if saved is None:
        return "new"
    for name, old, new in _differences(saved["config"], variant.config):
        if not name.startswith(runs.FREE):
            raise InputError(
                f"workdir={folder} holds a run with {name}={old!r}, not {new!r}: "
                "choose another --workdir"
            )
    if results and not _differences(results["config"], variant.config):
        return "finished"
    return "failed" if identity and identity["failure"] else "unfinished"


def listing(config, found, workdir):
    """The variants with their state and predicted cost, as lines of text.

    Args:
        config: the sweep's ConfigDict.
        found: list of `variants.Variant`.
        workdir: the sweep's folder.

    Returns:
        Text.
    """
    from experiments import variants

    states = [status(v, Path(workdir) / v.name) for v in found]
    per_step, per_flop = variants.calibrate(config)
    lines = [
        f"{'variant':30} {'state':>10} {'epochs':>7} {'steps':>9} {'grad. evals':>11} "
        f"{'train FLOP':>11} {'eval FLOP':>10} {'hours':>9}"
    ]
    left = 0.0
    for variant, state in zip(found, states):
        hours = (variant.steps * per_step + variant.flops * per_flop) / 3600
        left += hours * (state != "finished")
        lines.append(
            f"{variant.name:30} {state:>10} {variant.config.num_epochs:7d} "
            f"{variant.steps:9d} {variant.gradient_evaluations:11.3g} "
            f"{variant.train_flops:11.3g} {variant.evaluation_flops:10.3g} {hours:9.3g}"
            + _matched(variant)
        )
    lines.append(
        f"{len(found)} variants, {states.count('finished')} finished; {left:.3g} hours "
        f"for the others at {1e-9 / per_flop:.3g} GFLOP/s and {1e3 * per_step:.3g} ms "
        "besides for each step (unfinished ones counted whole; compiling left out)"
    )
    return "\n".join(lines)


def _matched(variant):
    """How near whole epochs come to the matched cost."""
    matched = variant.identity["matched_cost"]
    return f"  {matched['ratio']:.2f} of the matched cost" if matched else ""


def _run_one(variant, folder, compile_cache):
    """Runs a variant; returns its name in a list where it failed."""
    import jax

    from experiments import runs
    from experiments.metrics import write_json

    identity = {"name": variant.name, **variant.identity}
    write_json(folder / "variant.json", {**identity, "failure": None})
    try:
        launcher.run("train_and_evaluate", variant.config, folder, compile_cache)
    except runs.Stopped:
        raise
    except (cli.Ended, jax.errors.JaxRuntimeError) as error:
        reason = str(error).splitlines()[0]
        write_json(folder / "variant.json", {**identity, "failure": reason})
        print(f"{variant.name} failed: {reason}", flush=True)
        return [variant.name]
    finally:
        jax.clear_caches()
    return []


def _check_all(found, workdir):
    """Refuses bad input before any long work."""
    from experiments import datasets, runs

    for variant in found:
        datasets.check_available(variant.config.dataset, variant.config.data_dir)
        status(variant, Path(workdir) / variant.name)
    runs.prepare(workdir)


def _differences(saved, config):
    """[(name, saved value, value)] of settings that differ and make another result."""
    from experiments import runs

    ignored = tuple(name for name in runs.FREE if name != "evaluation")
    old = runs.flatten(runs.complete(saved))
    new = runs.flatten(runs.plain(config))
    return [
        (name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not name.startswith(ignored)
    ]


def _parse_shard(text):
    """'i/n' as (i, n)."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise InputError(f"shard={text!r}: use i/n with i from 1 to n, such as 2/4")
    return index, count


@contextlib.contextmanager
def _signals():
    """Turns SIGTERM and Ctrl-C outside training, where a run saves, into `Stopped`."""
    from experiments import runs

    def stop(*_):
        raise runs.Stopped("Stopped. The same command goes on from there.")

    numbers = (signal.SIGTERM, signal.SIGINT)
    old = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _locked(folder):
    """Holds a folder's lock; yields False where another process holds it."""
    import fcntl

    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass  # a file system without locks
        yield True


def _define_flags():
    flags.DEFINE_string("workdir", "runs/tables", "Folder of the sweep.")
    flags.DEFINE_string("shard", "1/1", "i/n: share i, from 1, of n machines.")
    flags.DEFINE_list("only", [], "Names of the variants to run, with commas.")
    flags.DEFINE_bool("dry_run", False, "List the variants and their cost.")
    flags.DEFINE_string(
        "compile_cache",
        "~/.cache/ais_jax/xla",
        "Folder of JAX's persistent compilation cache; empty for none.",
    )
    return cli.define_config("table1.py:digits")


if __name__ == "__main__":
    config_flag = _define_flags()
    cli.run(lambda: main(config_flag))
