"""Training curves on disk: a JSON-lines file, with TensorBoard events beside it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.system.devices import is_first
from experiments.system.files import damaged, from_plain, to_plain, write_text


@contextlib.contextmanager
def metrics_writer(workdir: Path, resume_step: int | None) -> Iterator[Callable]:
    """Gives (step, row, pictures), for `metrics.jsonl` and `tensorboard` of a folder.

    Opening it drops the rows that a resumed run will write again: those after
    `resume_step`, the step of the checkpoint that the run continues from, or all where
    it is None. When a row is written it survives the process's death; TensorBoard's
    events follow within about a second. There a scalar is `name`, a vector `name/0`,
    `name/1`, ..., and a matrix `name/0/0`, ...; pictures are u8[H, W, C] by name.
    Processes other than the first write nothing.
    """
    if not is_first():
        yield lambda step, row, pictures=None: None
        return
    from tensorboardX import SummaryWriter

    workdir = Path(workdir)
    path = workdir / "metrics.jsonl"
    next_step = 0 if resume_step is None else resume_step + 1
    rows = [row for row in read_metrics(path) if row["step"] < next_step]
    write_text(path, "".join(_line(row) for row in rows))
    options = {"purge_step": next_step, "filename_suffix": f".{next_step}"}
    with (
        open(path, "a", encoding="utf-8") as file,
        SummaryWriter(str(workdir / "tensorboard"), flush_secs=1, **options) as events,
    ):

        def write(step, row, pictures=None):
            file.write(_line({"step": step, **row}))
            file.flush()
            for name, value in row.items():
                for tag, number in _tags(name, value):
                    events.add_scalar(tag, number, step)
            for name, picture in (pictures or {}).items():
                events.add_image(name, picture, step, dataformats="HWC")

        yield write


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the rows of a `metrics.jsonl`, oldest first; none where there is no file.

    A torn last line, which a killed run may leave, is ignored.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = from_plain(json.loads(line))
            rows.append({"step": row["step"] + 0, **row})
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            if number < len(lines):
                raise damaged(path, f"line {number} is no row of metrics") from error
    return rows


def last_row(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """The newest row of a run's folder; empty where there is none."""
    return (read_metrics(Path(workdir) / "metrics.jsonl") or [{}])[-1]


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(to_plain(row), allow_nan=False) + "\n"


def _tags(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yields TensorBoard's scalars for one value."""
    for place, entry in np.ndenumerate(np.asarray(value, dtype=np.float64)):
        yield "/".join([name, *map(str, place)]), float(entry)
