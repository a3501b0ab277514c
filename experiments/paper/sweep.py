"""The runs of a sweep: chosen, listed with their cost, run one after the other."""

import re
from pathlib import Path

import jax
import pandas as pd
from ml_collections import ConfigDict

from ais_jax.checks import unknown_name
from experiments.data import load
from experiments.paper import compare, grid
from experiments.paper import variants as expansion
from experiments.paper.variants import Variant
from experiments.run import launch
from experiments.run.folder import VERSION, check_same, differences, read
from experiments.run.settings import FREE
from experiments.system import files
from experiments.system.errors import DamagedFile, Ended, InputError, Stopped
from experiments.system.progress import log

_ELSEWHERE = tuple(name for name in FREE if name != "evaluation")


def select(
    config: ConfigDict, shard="1/1", only=(), over=(), num_random=0
) -> list[Variant]:
    """The variants that this process is to run: a shard i/n of them, or some by name.

    They are a table's rows, a comparison's variants or, of a run's config, the points
    of a grid (`grid.select`).
    """
    index, count = _parse_shard(shard)
    if over:
        variants = grid.select(config, over, num_random)
    elif "variants" in config and "run" in config:
        variants = compare.select(config)
    else:
        variants = expansion.expand(config)
    names = [variant.name for variant in variants]
    for name in only:
        if name not in names:
            raise InputError(unknown_name("only", name, names))
    chosen = [v for v in variants if v.name in only] if only else variants
    return expansion.shard(chosen, index, count)


def run(variants, workdir):
    """Trains and evaluates variants one after the other, each in a folder.

    Finished ones are skipped, unfinished ones go on where they were. What those that
    are no row of a table reached is printed, and kept in compare.md. Where variants
    failed it ends with status 1, after the others.
    """
    workdir, failed = Path(workdir), []
    _check_all(variants, workdir)
    for number, variant in enumerate(variants, 1):
        folder = workdir / variant.name
        folder.mkdir(parents=True, exist_ok=True)
        with files.locked(folder) as is_free:
            state = status(variant, folder) if is_free else "in use elsewhere"
            print(f"[{number}/{len(variants)}] {variant.name}: {state}", flush=True)
            failed += [variant.name] * (state == "damaged")
            if state in ("new", "unfinished", "failed"):
                failed += _run_one(variant, folder)
    if failed:
        names = ", ".join(failed)
        raise Ended(f"{len(failed)} of {len(variants)} variants failed: {names}")
    print(_outcome(variants, workdir))


def status(variant: Variant, folder: Path) -> str:
    """How far a variant is: 'new', 'unfinished', 'failed', 'finished' or 'damaged'.

    What is damaged is logged.
    """
    kinds = (("config", "config"), ("results", "config"), ("variant", "failure"))
    paths = [(folder / f"{name}.json", key) for name, key in kinds]
    try:
        saved, results, identity = [
            read(path, key) if path.exists() else None for path, key in paths
        ]
    except DamagedFile as damage:
        log.warning("%s: %s", variant.name, damage)
        return "damaged"
    if saved is None:
        return "new"
    check_same(folder, saved["config"], variant.settings.saved)
    changes = results and differences(results["config"], variant.settings.saved)
    if results and all(name.startswith(_ELSEWHERE) for name, *_ in changes):
        return "finished"
    return "failed" if identity and identity["failure"] else "unfinished"


def listing(variants: list[Variant], workdir: Path) -> str:
    """The variants with their state and cost, as lines of text."""
    states = [status(v, Path(workdir) / v.name) for v in variants]
    table = pd.DataFrame(
        {
            "variant": [v.name for v in variants],
            "state": states,
            "epochs": [v.settings.num_epochs for v in variants],
            "steps": [v.steps for v in variants],
            "grad. evals": [float(v.gradient_evaluations) for v in variants],
        }
    )
    text = table.to_string(index=False, float_format="{:.3g}".format)
    return f"{text}\n{len(variants)} variants, {states.count('finished')} finished"


def _outcome(variants, workdir):
    """What was reached, or how to see it where there are rows of the paper's tables."""
    if any(variant.row for variant in variants):
        out = workdir / "report"
        return f"Done. The tables: python -m experiments.report {workdir} --out={out}"
    text = compare.table(variants, workdir)
    files.write_text(workdir / "compare.md", text)
    return text


def _run_one(variant, folder):
    """Runs a variant; returns its name in a list where it failed."""
    identity = {"version": VERSION, "name": variant.name, **variant.identity}
    files.write_json(folder / "variant.json", {**identity, "failure": None})
    try:
        launch.train_and_evaluate(variant.config, folder)
    except Stopped:
        raise
    except (Ended, ValueError, jax.errors.JaxRuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        files.write_json(folder / "variant.json", {**identity, "failure": reason})
        print(f"{variant.name} failed: {reason}", flush=True)
        return [variant.name]
    finally:
        jax.clear_caches()
    return []


def _check_all(variants, workdir):
    """Refuses bad input before any long work."""
    for variant in variants:
        settings = variant.settings
        load.check_available(settings.dataset, settings.data_dir)
        status(variant, workdir / variant.name)
    files.prepare(workdir)


def _parse_shard(text):
    """'i/n' as (i, n)."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise InputError(f"shard={text!r}: use i/n with i from 1 to n, such as 2/4")
    return index, count
