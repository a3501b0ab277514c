"""The sweep: the tables' variants, their costs, shards, skipping and resuming."""

from collections import Counter

import pytest

from configs import presets, table1, table2
from experiments.data import load
from experiments.data.catalogue import CATALOGUE
from experiments.evaluate import evaluate
from experiments.paper import sweep, tables, variants
from experiments.run import build
from experiments.run.settings import plain
from experiments.system import files
from experiments.system.errors import (
    DataError,
    Ended,
    InputError,
    NonFiniteLoss,
    Stopped,
)
from experiments.system.files import read_json


def tiny(structure="digits"):
    """A sweep of seconds: one epoch, eight units, few chains."""
    config = table1.get_config(structure)
    config.num_epochs = 1
    config.batch_size = config.dreg_batch_size = 500
    config.evaluation.num_examples = 10
    config.model.latent_sizes, config.model.widths = (2,), ((8,),)
    config.evaluation.num_chains = 2
    config.evaluation.num_temperatures = 1
    config.evaluation.num_leapfrog = 1
    config.evaluation.iwae_samples = 2
    config.evaluation.num_simulated = 0
    return config


@pytest.fixture(scope="module")
def both():
    """The variants of Tables 1 and 2."""
    return [
        v for table in (table1, table2) for v in variants.expand(table.get_config())
    ]


def test_the_tables_are_25_models(both):
    assert len(both) == 18 + 12
    assert len({v.name for v in both}) == 25
    assert all(v.row in tables.PAPER for v in both) and len(tables.PAPER) == 25
    methods = Counter(row.method for row in {v.row for v in both})
    assert methods == {"dreg": 9, "ais": 12, "mh_hmc": 4}
    assert tables.PAPER[tables.Row("omniglot", "ais", 5, 11)] == -101.94
    assert tables.PAPER[tables.Row("omniglot", "mh_hmc", 50, 11)] == -101.25
    assert tables.PAPER[tables.Row("mnist", "dreg", 50)] == -84.38


def test_shared_rows_are_the_same_run(both):
    configs = {}
    for variant in both:
        mine = plain(variant.config)
        assert configs.setdefault(variant.name, mine) == mine


AUTHORS_ADAM = ("adam", 0.9, 0.999, 1e-4)


def test_every_variant_follows_the_released_protocol(both):
    for variant in both:
        config = variant.config
        assert config.num_epochs == 3280
        assert config.batch_size == (20 if variant.row.method == "dreg" else 128)
        assert config.optimizer.schedule == "stages"
        adam = variant.settings.optimizer
        assert (adam["name"], adam["b1"], adam["b2"], adam["eps"]) == AUTHORS_ADAM
        assert adam == variant.settings.phi_optimizer
        assert variant.settings.learning_rates == ((1e-3, 1e-3),)
        assert not config.model.data_mean_bias
        assert variant.settings.model["widths"] == ((200, 200),)
        assert config.evaluation.preset == "paper"
        if variant.row.method != "dreg":
            assert config.estimator.preconditioner == "unit"
            assert config.estimator.num_leapfrog == 5
    sizes = presets.STEP_SIZES["unit"]
    assert sizes == {"first": 0.1, "smallest": 0.001, "largest": 0.3}


@pytest.mark.parametrize(("reading", "moves"), [("increments", 11), ("released", 10)])
@pytest.mark.parametrize("method", ["ais", "mh_hmc"])
def test_both_readings_of_t(reading, moves, method):
    config = table2.get_config()
    config.reading = reading
    found = [v for v in variants.expand(config) if v.row[1:] == (method, 50, 11)]
    (variant,) = found
    model = build.build_model(variant.settings, (28, 28))
    assert build.build_estimator(variant.settings, model).num_moves == moves
    assert variant.identity["num_moves"] == moves
    assert variant.identity["reading"] == reading
    assert variant.name.endswith("-released") == (reading == "released")
    assert tables.match(plain(variant.config)) == (variant.row, reading)


def test_structures_restrict():
    assert {v.row.dataset for v in variants.expand(table1.get_config("mnist"))} == {
        "mnist"
    }
    found = variants.expand(table2.get_config("digits"))
    assert len(found) == 12 and {v.row.dataset for v in found} == {"digits"}
    with pytest.raises(ValueError, match="did you mean 'omniglot'"):
        table1.get_config("omniglott")


def test_settings_override_the_protocol():
    config = table1.get_config("omniglot")
    config.update({"num_epochs": 100, "batch_size": 64})
    config.evaluation.update({"preset": "default", "num_examples": 1000})
    for variant in variants.expand(config):
        run = variant.config
        assert (run.num_epochs, run.evaluation.num_examples) == (100, 1000)
        assert run.evaluation.preset == "default"
        assert run.batch_size == (20 if variant.row.method == "dreg" else 64)


def test_cost_counts_steps_and_gradient_evaluations():
    by_name = {v.name: v for v in variants.expand(table1.get_config())}
    variant = by_name["omniglot-ais-K5-T11"]
    assert variant.steps == 3280 * (24345 // 128)
    assert variant.gradient_evaluations == variant.steps * 128 * (5 * (2 + 55) + 1)


def test_digits_have_the_counted_images():
    data = load.load("digits")
    sizes = len(data.train), len(data.test), data.train.shape[1]
    entry = CATALOGUE["digits"]
    assert (entry.num_train, entry.num_test, entry.num_pixels) == sizes


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_shards_are_dealt_round_by_cost(both, count):
    found = both[:18]
    shards = [variants.shard(found, i + 1, count) for i in range(count)]
    names = [v.name for shard in shards for v in shard]
    assert sorted(names) == sorted(v.name for v in found)
    loads = [sum(v.gradient_evaluations for v in shard) for shard in shards]
    dearest = max(v.gradient_evaluations for v in found)
    assert max(loads) - min(loads) <= dearest
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("text", ["3/2", "0/2", "1", "a/b", "1/0", "-1/2"])
def test_bad_shards_are_refused(text):
    with pytest.raises(InputError, match="shard"):
        sweep.select(table1.get_config("digits"), text)


def test_an_unknown_variant_names_the_nearest():
    with pytest.raises(InputError, match="mean 'digits-dreg-K50'"):
        sweep.select(table1.get_config("digits"), only=["digit-dreg-K50"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("reading", "increment", "mean 'increments'"),
        ("datasets", ("omniglt",), "mean 'omniglot'"),
        ("datasets", (), "datasets"),
        ("evaluation.preset", "papr", "mean 'paper'"),
        ("num_epochs", 0, "num_epochs=0"),
        ("batch_size", 100000, "training images"),
    ],
)
def test_bad_settings_are_one_line(name, value, message):
    config = table1.get_config()
    config.update_from_flattened_dict({name: value})
    with pytest.raises(InputError, match=message) as error:
        variants.expand(config)
    assert "\n" not in str(error.value)


def test_a_config_of_the_launcher_is_refused():
    from configs import digits

    with pytest.raises(InputError, match="no sweep's"):
        variants.expand(digits.get_config())


def test_a_sweep_trains_skips_and_resumes(tmp_path, capsys, monkeypatch):
    config = tiny()
    first, second = "digits-dreg-K1", "digits-dreg-K5"
    pair = sweep.select(config, only=[first, second])
    sweep.run(pair[:1], tmp_path)
    assert [sweep.status(v, tmp_path / v.name) for v in pair] == ["finished", "new"]
    identity = read_json(tmp_path / first / "variant.json")
    assert identity["method"] == "dreg" and identity["failure"] is None

    def stop(*_):
        raise Stopped("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "evaluate", stop)
        with pytest.raises(Stopped):
            sweep.run(pair, tmp_path)
    assert sweep.status(pair[1], tmp_path / second) == "unfinished"
    written = (tmp_path / first / "results.json").stat().st_mtime_ns
    capsys.readouterr()
    sweep.run(pair, tmp_path)
    text = capsys.readouterr().out
    assert f"{first}: finished" in text and f"{second}: unfinished" in text
    assert [sweep.status(v, tmp_path / v.name) for v in pair] == ["finished"] * 2
    assert (tmp_path / first / "results.json").stat().st_mtime_ns == written
    config.optimizer.settings = {"b1": 0.8}
    with pytest.raises(InputError, match=r"settings\.b1=0\.9, not 0\.8"):
        sweep.run(sweep.select(config), tmp_path)


@pytest.mark.parametrize(
    "failure",
    [
        NonFiniteLoss("not finite at step 3\nand more"),
        ValueError("not finite at step 3"),
        DataError("not finite at step 3"),
    ],
)
def test_a_failed_variant_is_reported_and_the_sweep_goes_on(
    tmp_path, monkeypatch, failure
):
    done = []

    def fake(config, folder):
        done.append(folder.name)
        if "K5" in folder.name:
            raise failure

    monkeypatch.setattr(sweep.launch, "train_and_evaluate", fake)
    names = ["digits-dreg-K1", "digits-dreg-K5", "digits-ais-K1-T5"]
    found = sweep.select(tiny(), only=names)
    with pytest.raises(Ended, match="1 of 3 variants failed: digits-dreg-K5") as end:
        sweep.run(found, tmp_path)
    assert end.value.status == 1 and done == names
    identity = read_json(tmp_path / "digits-dreg-K5" / "variant.json")
    assert identity["failure"] == "not finite at step 3"


def test_a_variant_in_use_elsewhere_is_left_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        sweep.launch, "train_and_evaluate", lambda *_, **__: pytest.fail("it ran")
    )
    (variant,) = sweep.select(tiny(), only=["digits-dreg-K1"])
    (tmp_path / variant.name).mkdir()
    with files.locked(tmp_path / variant.name) as is_free:
        assert is_free
        sweep.run([variant], tmp_path)
    assert "in use elsewhere" in capsys.readouterr().out


def test_the_listing_has_the_cost_and_writes_nothing(tmp_path):
    found = sweep.select(table2.get_config())
    text = sweep.listing(found, tmp_path)
    heading, *others, last = text.splitlines()
    assert len(others) == 12 and last == "12 variants, 0 finished"
    assert heading.endswith("grad. evals")
    assert any(line.endswith(" 4.63e+09") for line in others)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["config.json", "results.json", "variant.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": 1}'])
def test_a_damaged_variant_fails_alone(tmp_path, monkeypatch, caplog, file, text):
    done = []
    monkeypatch.setattr(
        *(sweep.launch, "train_and_evaluate"),
        lambda config, folder: done.append(folder.name),
    )
    names = ["digits-dreg-K1", "digits-dreg-K5"]
    (tmp_path / names[0]).mkdir()
    (tmp_path / names[0] / file).write_text(text)
    with pytest.raises(Ended, match="1 of 2 variants failed: digits-dreg-K1"):
        sweep.run(sweep.select(tiny(), only=names), tmp_path)
    assert done == names[1:]
    assert str(tmp_path / names[0] / file) in caplog.text
