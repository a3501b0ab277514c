"""Joins runs that differ in their seeds alone, so that seeds may be added later."""

import json

import numpy as np

from experiments import differences, runs


def pool(found, neutral):
    """Joins the runs of one experiment into one run, their replicates together.

    Args:
        found: list of `report.Run`.
        neutral: how the names of the settings begin that make no other result.

    Returns:
        List of `report.Run`. Of joined runs the names are joined by " + " and the
        seconds added. Runs that share a seed stay apart.
    """
    groups = {}
    for run in found:
        own = _seeds(run)
        pools = groups.setdefault(_experiment(run, neutral), [])
        for seeds, members in pools:
            if seeds.isdisjoint(own):
                seeds |= own
                members.append(run)
                break
        else:
            pools.append((own, [run]))
    return [_join(members) for pools in groups.values() for _, members in pools]


def _experiment(run, neutral):
    """What the runs that are to be joined have in common, as text."""
    if run.results is None:
        return run.name
    config = {**run.results["config"], "evaluation": run.results["evaluation"]}
    settings = {
        name: value
        for name, value in runs.flatten(config).items()
        if not name.startswith(neutral)
    }
    test_set = differences.identity(run.results)
    matched = (run.variant or {}).get("matched_cost")
    kind = settings, test_set, run.results["steps"], matched
    return json.dumps(kind, sort_keys=True)


def _seeds(run):
    """The seeds of a run; replicate r is the run of seed + r alone."""
    if run.results is None:
        return set()
    first = run.results["config"]["seed"]
    return {first + r for r in range(len(run.results["replicates"]))}


def _join(members):
    if len(members) == 1:
        return members[0]
    first, *_ = found = [run.results for run in members]
    seconds = ("training_seconds", "evaluation_seconds")
    results = {
        **first,
        **{name: sum(results[name] for results in found) for name in seconds},
        "replicates": [part for results in found for part in results["replicates"]],
    }
    return members[0]._replace(
        name=" + ".join(run.name for run in members),
        results=results,
        curve=_join_curves([run.curve for run in members]),
    )


def _join_curves(curves):
    """Rows of the steps that all curves have, with every replicate's log p(x)."""
    by_step = [{row["step"]: row for row in curve} for curve in curves]
    joined = []
    for row in curves[0]:
        rows = [steps.get(row["step"]) for steps in by_step]
        if None not in rows:
            values = np.concatenate([np.atleast_1d(r["test_log_p"]) for r in rows])
            joined.append({**row, "test_log_p": values.tolist()})
    return joined
