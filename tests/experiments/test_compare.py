"""Variants of one run at equal cost, and the table of what each gains."""

import pytest

from configs import compare as configs
from experiments.paper import compare, sweep
from experiments.paper.variants import gradient_evaluations
from experiments.run.settings import resolve
from experiments.system.errors import InputError


@pytest.mark.parametrize("dataset", configs.DATASETS)
def test_variants_make_the_baselines_gradient_evaluations(dataset):
    baseline, *others = compare.select(configs.get_config(dataset))
    assert baseline.name == "ais"
    for variant in others:
        costs = []
        for more in (0, -1, 1):
            run = variant.config.copy_and_resolve_references()
            run.num_epochs += more
            costs.append(gradient_evaluations(resolve(run)))
        assert costs[0] == variant.gradient_evaluations
        off = [abs(cost - baseline.gradient_evaluations) for cost in costs]
        assert off[0] == min(off) < 0.01 * baseline.gradient_evaluations


def test_at_equal_epochs_every_variant_has_the_runs():
    config = configs.get_config("digits")
    config.equal_cost = False
    epochs = {v.settings.num_epochs for v in compare.select(config)}
    assert epochs == {config.run.num_epochs}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"estimator": {"momentum": 0.9}}, "estimator.momentum=0.9 is not read"),
        ({"estimator": {"average": "all"}}, "average='all'"),
        ({"optimizer": {"name": "adma"}}, "optimizer.name='adma'"),
    ],
)
def test_bad_changes_are_refused(changes, message):
    config = configs.get_config("digits")
    config.variants.new = changes
    with pytest.raises(InputError, match=message):
        compare.select(config)


def test_unknown_names_are_refused():
    config = configs.get_config("digits")
    with pytest.raises(InputError, match=r"only='pionts'.*'points'"):
        sweep.select(config, only=["pionts"])
    config.baseline = "dreg"
    with pytest.raises(InputError, match="baseline='dreg'"):
        compare.select(config)


@pytest.mark.slow
def test_the_table_says_what_each_variant_gains(tmp_path):
    config = configs.get_config("digits")
    config.run.num_epochs = 2
    evaluation = config.run.evaluation
    evaluation.num_examples, evaluation.num_temperatures = 20, 5
    evaluation.num_chains, evaluation.num_simulated = 2, 4
    evaluation.iwae_samples = 5
    variants = sweep.select(config, only=["ais", "best"])
    sweep.run(variants, tmp_path)
    text = compare.table(variants, tmp_path)
    assert (tmp_path / "compare.md").read_text() == text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["ais", "best"]
    gained = [line.split("|")[-2].strip() for line in lines[2:]]
    assert gained[0] == "" and "±" in gained[1]
    assert compare.table(variants, tmp_path / "nothing").startswith("No variant")
