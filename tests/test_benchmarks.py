"""Every benchmark runs, on a small model, and prints and writes what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ais_jax.numerics import log_mean_exp
from benchmarks import common, peers, runner

ROOT = Path(__file__).parents[1]
MEASURED = (
    *("sampler", "training_step", "scaling", "memory", "startup"),
    *("cores", "weak_scaling", "log_z", "outer_products", "smc"),
)


@pytest.mark.slow
@pytest.mark.parametrize("script", (*MEASURED, "fill", "launches"))
def test_a_quick_run_prints_and_writes_its_tables(script, tmp_path):
    if script == "smc":
        pytest.importorskip("blackjax", reason="the peer BlackJAX is not installed")
    output = tmp_path / "result.json"
    command = [sys.executable, "-m", f"benchmarks.{script}", "--quick"]
    command += [f"--output={output}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    for title, rows in result["tables"].items():
        assert f"\n{title}\n" in done.stdout
        assert rows
    assert {"commit", "device", "date", "jax"} <= result["environment"].keys()


@pytest.mark.parametrize("script", MEASURED)
def test_the_committed_results_have_a_commit_and_a_device(script):
    result = json.loads((runner.RESULTS / f"{script}.json").read_text())
    assert result["environment"]["commit"] != "unknown"
    assert result["environment"]["device"]


def test_rounds_are_interleaved():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = runner.interleave(functions, 0.001)
    assert "".join(calls) == "ab" * (len(times["a"]) + 1)
    assert len(times["a"]) == len(times["b"]) >= 3


@pytest.mark.parametrize("densities", ["BlackJAX", "BlackJAX, our densities"])
def test_blackjax_samples_the_same_targets(densities):
    pytest.importorskip("blackjax", reason="the peer BlackJAX is not installed")
    work = common.SMALL
    ours = common.estimator(work, 64, 4)
    estimates = peers.blackjax_estimators(ours, work, 4)
    key, theta, phi, x, step_sizes = common.sampler_arguments(work, 4)
    ours, peer = (
        float(log_mean_exp(e.sample(key, theta, phi, x[0], step_sizes).log_w))
        for e in (ours, estimates[densities])
    )
    assert peer == pytest.approx(ours, abs=0.2)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_pytorch_peer_makes_steps(autocast):
    pytest.importorskip("torch", reason="the peer PyTorch is not installed")
    with runner.Remote(peers.torch_step, common.SMALL, 2, 3, autocast) as step:
        step()
        step()
