"""Variants of one run beside each other: what each change gains, in nats."""

from pathlib import Path

import pandas as pd
from ml_collections import ConfigDict

from ais_jax.checks import unknown_name
from experiments.paper.differences import cell
from experiments.paper.lines import moments
from experiments.paper.results import split
from experiments.paper.variants import Variant, counted, gradient_evaluations, match
from experiments.run.folder import read
from experiments.run.settings import flatten, resolve
from experiments.system.errors import InputError

_LEGEND = """\
Test log p(x) in nats, higher is better: ± over seeds, and the bidirectional gap on
simulated data, by which it may be too low. Gained: over the first line, paired over the
test images, ± over images and seeds together. Gradient evaluations are those of one
seed."""


def select(config: ConfigDict) -> list[Variant]:
    """The variants of a comparison, the baseline first."""
    baseline = config.baseline
    if baseline not in config.variants:
        raise InputError(unknown_name("baseline", baseline, list(config.variants)))
    names = sorted(config.variants, key=lambda name: (name != baseline, name))
    runs = {
        name: changed(config.run, config.variants[name].to_dict(), f"variants.{name}")
        for name in names
    }
    if config.equal_cost:
        budget = gradient_evaluations(resolve(runs[baseline]))
        for run in runs.values():
            match(run, budget)
    return [
        variant(name, run, flatten(config.variants[name].to_dict()))
        for name, run in runs.items()
    ]


def table(variants: list[Variant], workdir: Path) -> str:
    """What the finished variants reached, as Markdown, in their order."""
    found = {}
    for variant in variants:
        path = Path(workdir) / variant.name / "results.json"
        for one in split(read(path, "replicates")) if path.exists() else ():
            name = one["replicates"][0].get("name")
            found[f"{variant.name}, {name}" if name else variant.name] = one
    if not found:
        return "No variant is finished.\n"
    first = next(iter(found.values()))
    rows = [_row(name, results, first) for name, results in found.items()]
    text = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
    return f"{_LEGEND}\n\n{text}\n"


def changed(run: ConfigDict, changes: dict, where: str) -> ConfigDict:
    """A copy of a run's config with some settings changed, said `where`."""
    run = run.copy_and_resolve_references()
    try:
        with run.unlocked():  # an optimizer's dict may gain names
            run.update(changes)
    except (KeyError, TypeError) as error:
        raise InputError(f"{where}: {error.args[0]}") from error
    return run


def variant(name: str, run: ConfigDict, changes: dict) -> Variant:
    """A `Variant` of a run's config with some settings changed, by dotted names."""
    return counted(name, None, run, {"changes": changes})


def _row(name, results, first):
    numbers = moments(results)
    error, has_gap = numbers["error_over_replicates"], numbers["gap"] is not None
    return {
        "variant": name,
        "epochs": f"{results['epochs']:g}",
        "gradient evaluations": f"{results['gradient_evaluations']:.3g}",
        "log p(x)": f"{numbers['log_p']:.2f}",
        "± seeds": "one seed" if error is None else f"{error:.2f}",
        "gap": "{gap:.2f} ± {gap_error:.2f}".format(**numbers) if has_gap else "",
        "gained": cell(results, first),
    }
