"""Abuse of the launcher, with fixed seeds: what it does must be clear and lose nothing.

    python tests/abuse.py --folder=DIR --only=kills,flips

A small run on the digits is killed, its files are flipped, damaged and written twice at
once, its disk is filled, and its command line is wrong. Every end must be a known
status with one line and no traceback, a refusal within 10 seconds of CPU time; every
run that goes on must reach the numbers of an undisturbed one.
"""

import argparse
import contextlib
import io
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from configs import digits  # noqa: E402
from experiments.run import build, launch, train  # noqa: E402
from experiments.run.checkpoint import Checkpointer  # noqa: E402
from experiments.run.settings import resolve  # noqa: E402
from experiments.system import devices  # noqa: E402
from experiments.system.errors import InputError  # noqa: E402
from experiments.system.files import read_json  # noqa: E402

FOLDER = Path(tempfile.gettempdir()) / "ais_jax_abuse"
SECONDS = 10.0  # of CPU time
TINY = {
    "num_epochs": 40,
    "model.force_precision": "float32",
    "evaluation.force_precision": "float32",
    "model.latent_sizes": (4,),
    "model.widths": ((16,),),
    "estimator.num_temperatures": 3,
    "estimator.num_leapfrog": 2,
    "training.steps_per_row": 5,
    "training.checkpoint_seconds": 0.2,
    "evaluation.num_examples": 20,
    "evaluation.num_chains": 4,
    "evaluation.num_temperatures": 8,
    "evaluation.num_leapfrog": 2,
    "evaluation.iwae_samples": 5,
    "evaluation.num_simulated": 10,
    "evaluation.chunk_size": 5,
    "sharding.data": 1,
}
GROUPS = "*.json*", "evaluation/**/*", "checkpoints/**/*"  # of a run's files
BAD = [  # arguments, and what the line must say
    ("--config.estimator.schedule=0,2,1", "betas[1]=2 is followed by betas[2]=1"),
    *((f"--config.{name}={value}", name.split(".")[-1]) for name, value in (
        ("num_epochs", "0"), ("num_epochs", "many"), ("num_epochs", "1.5"),
        ("batch_size", "0"), ("batch_size", "-3"), ("batch_size", "1501"),
        ("num_replicates", "0"), ("seed", "-1"), ("seed", "4294967296"),
        ("dataset", "digit"), ("dataset", ""), ("num_epoch", "3"),
        ("model.latent_sizes", "(0,)"), ("model.latent_sizes", "('a',)"),
        ("model.widths", "((200,200))"), ("model.widths", "((9999999,9999999),)"),
        ("model.widths", "((10,),(10,))"), ("model.activation", "tahn"),
        ("model.precision", "float16"), ("estimator.num_samples", "0"),
        ("estimator.schedule", "linaer"),
        ("estimator.weighting", "unifrom"), ("estimator.num_leapfrog", "0"),
        ("optimizer.learning_rate", "(nan,)"), ("optimizer.learning_rate", "(-1.0,)"),
        ("optimizer.learning_rate", "(0.1,0.2)"), ("optimizer.name", "adma"),
        ("optimizer.schedule", "cosin"), ("optimizer.settings", "{'b1':1.5}"),
        ("optimizer.phi.settings", "fast"), ("training.average_decay", "1.0"),
        ("evaluation.preset", "quik"), ("evaluation.subset", "frist"),
        ("evaluation.num_chains", "0"), ("sharding.data", "7"),
    )),
    ("--config=configs/nowhere.py", "nowhere"),
    ("--config=configs/table1.py", "experiments.sweep"),
    ("--workdri=x", "workdir"),
    ("--mode=evaluate", "holds no run"),
]  # fmt: skip


class Abuse:
    """What the abuses share: a folder, random numbers, and an undisturbed run."""

    def __init__(self, folder, seed):
        self.folder, self.random = folder, random.Random(seed)
        self.cache, self.whole = folder / "cache", folder / "whole"
        if not (self.whole / "results.json").exists():
            status, text, _ = self.end(self.start(self.whole))
            assert status == 0, text
        devices.use_compile_cache(str(self.cache))
        config = digits.get_config()
        config.update_from_flattened_dict(TINY)
        self.config, self.settings = config, resolve(config)
        launch.use_cores([config])
        self.expected = numbers(self.whole)

    def start(self, workdir, *arguments):
        """A process of the launcher."""
        command = [sys.executable, "-m", "experiments.main", f"--workdir={workdir}"]
        command += [f"--compile_cache={self.cache}"]
        given = [argument.split("=")[0] for argument in arguments]
        for name, value in TINY.items() if "--config" not in given else ():
            if f"--config.{name}" not in given:  # tuples given twice are joined
                command.append(f"--config.{name}={value}")
        return subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process):
        """Status, what it said on stderr, and its CPU seconds."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        text = process.communicate(timeout=600)[1]
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        assert "Traceback" not in text, text
        return process.returncode, text, seconds

    def copy(self, name):
        """A copy of the undisturbed run."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return Path(shutil.copytree(self.whole, self.folder / name))

    def finish(self, workdir):
        """Runs to the end, which must be that of the undisturbed run."""
        status, text, _ = self.end(self.start(workdir))
        assert status == 0, text
        assert numbers(workdir) == self.expected


def numbers(workdir):
    """What a run measured, without when and by which commit."""
    results = read_json(workdir / "results.json")
    other = ("training_seconds", "evaluation_seconds", "commit")
    return {name: value for name, value in results.items() if name not in other}


def kills(abuse, number=20):
    """SIGKILL at any moment."""
    workdir = abuse.folder / "killed"
    for i in range(number):
        process = abuse.start(workdir)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=abuse.random.uniform(1.0, 15.0))
        process.kill()
        status, _, _ = abuse.end(process)
        if status == 0:  # it was done: the next one starts anew
            assert numbers(workdir) == abuse.expected
            workdir = abuse.folder / f"killed-{i}"
    abuse.finish(workdir)


def flips(abuse, number=30):
    """One bit of a checkpoint: its state comes back, an older one, or one line."""
    from experiments.data import load

    setup = build.build_training(abuse.settings, load.load("digits"))
    sound = {}
    for step in (abuse.whole / "checkpoints").glob("[0-9]*"):
        sound[int(step.name)] = restored(setup, abuse.whole, int(step.name))
    for _ in range(number):
        workdir = abuse.copy("flipped")
        path = abuse.random.choice(files_of(workdir, GROUPS[-1]))
        content = bytearray(path.read_bytes())
        content[abuse.random.randrange(len(content))] ^= 1 << abuse.random.randrange(8)
        path.write_bytes(content)
        started = time.process_time()
        try:
            state = restored(setup, workdir)
            whole = sound[int(state.step[0])]
            jax.tree.map(np.testing.assert_array_equal, state, whole)
        except InputError as error:
            assert "\n" not in str(error), error
        assert time.process_time() - started < SECONDS, path


def restored(setup, workdir, step=None):
    """The training state of the newest checkpoint, or of a step's, on the host."""
    with Checkpointer(workdir / "checkpoints", read_only=True) as checkpointer:
        return jax.device_get(checkpointer.restore(train.template(setup), step))


def damage(abuse, number=30):
    """Files that are empty, cut, nonsense or gone: the same numbers, or one line."""
    for _ in range(number):
        workdir = abuse.copy("damaged")
        group = abuse.random.choice(GROUPS)
        path = abuse.random.choice(files_of(workdir, group))
        content = path.read_bytes()
        kinds = {
            "empty": b"",
            "cut": content[: len(content) // 2],
            "nonsense": abuse.random.randbytes(100),
            "list": b"[]",
            "gone": None,
        }
        kind = abuse.random.choice(list(kinds))
        path.unlink()
        if kinds[kind] is not None:
            path.write_bytes(kinds[kind])
        started = time.process_time()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                launch.train_and_evaluate(abuse.config, workdir)
            assert numbers(workdir) == abuse.expected, path
        except InputError as error:
            assert "\n" not in str(error) and workdir.name in str(error), error
            assert time.process_time() - started < SECONDS, path
        print("  ", path.name, kind, flush=True)


def bad_input(abuse, number=40):
    """What no run can be made of: one line that names it, and no folder."""
    assert len(BAD) == number
    for argument, reason in BAD:
        workdir = abuse.folder / "refused"
        status, text, seconds = abuse.end(abuse.start(workdir, argument))
        assert status == 2 and text.startswith("Error: "), (argument, text)
        assert text.count("\n") == 1 and reason in text, (argument, text)
        assert not workdir.exists() and seconds < SECONDS, (argument, seconds)
        print("  ", text.strip())


def doubled(abuse, number=5):
    """Two starts in one folder: one is refused, or comes after the other's end."""
    for i in range(number):
        workdir = abuse.folder / f"doubled-{i}"
        first = abuse.start(workdir)
        time.sleep(abuse.random.uniform(0.0, 4.0))
        ends = [abuse.end(process) for process in (abuse.start(workdir), first)]
        refused = [text for status, text, _ in ends if status != 0]
        assert len(refused) < 2, refused
        for text in refused:
            last = text.splitlines()[-1]
            assert last.startswith("Error: ") and "in use by another" in last, text
        assert numbers(workdir) == abuse.expected


def full_disk(abuse, sizes=(20, 80, 200, 400)):
    """A disk of few kB: one line, and the same command goes on when there is room."""
    if os.geteuid() != 0:
        print("  only root can make a small disk: left out")
        return
    for size in sizes:
        disk = abuse.folder / f"disk-{size}"
        disk.mkdir(exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "tmpfs", disk, "-o"]
        subprocess.run([*mount, f"size={size}k"], check=True)
        try:
            status, text, _ = abuse.end(abuse.start(disk / "run"))
            last = text.splitlines()[-1]
            assert status == 1 and "the disk is full" in last, text
            print("  ", last)
            subprocess.run([*mount, "remount,size=50m"], check=True)
            abuse.finish(disk / "run")
        finally:
            subprocess.run(["umount", disk], check=True)


def files_of(workdir, pattern):
    """A run's files of one byte or more, in a fixed order."""
    paths = sorted(workdir.glob(pattern))
    return [path for path in paths if path.is_file() and path.stat().st_size]


ABUSES = {f.__name__: f for f in (kills, flips, damage, bad_input, doubled, full_disk)}


def main():
    """Runs the abuses; an AssertionError is a finding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(ABUSES), help="names, with commas")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in ("absl", "asyncio", "experiments"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    abuse = Abuse(args.folder, args.seed)
    for name in args.only.split(","):
        print(f"{name}: {ABUSES[name].__doc__}", flush=True)
        ABUSES[name](abuse)
    print("All ends were clear, and nothing was lost.")


if __name__ == "__main__":
    main()
