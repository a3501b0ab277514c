"""Figures of training curves, samples, reconstructions and likelihood bounds.

Each function writes one file, whose format its suffix names (.png, .pdf, .svg), and
makes its folder if missing. Nothing here needs a display or changes `pyplot`'s state.
Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.system.errors import Ended
from experiments.system.files import is_disk_full
from experiments.system.progress import log

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#999933", "#332288", "#AA4499", "#888888"),  # Tol's, for more curves
)
MARKERS = "osD^vP*X<>hpd"  # one more than colours: no early pair is alike
_PER_MOVE = {
    "accept_prob": ("acceptance probability", "linear"),
    "step_sizes": ("step size", "log"),
}
_SCORES = {
    "elbo": "ELBO (training images)",
    "valid_elbo": "ELBO (validation images)",
    "test_log_p": "test log p(x)",
}
_GREY = 0.5

Rows = Sequence[Mapping[str, Any]]
PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def optional() -> Iterator[None]:
    """A picture never costs a result: what cannot be drawn is said in a line."""
    try:
        yield
    except Ended:
        raise
    except Exception as error:  # of any drawing library
        if is_disk_full(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        log.warning("Pictures are left out that could not be drawn: %s", reason)


def learning_curves(
    rows: Rows, path: PathLike, *, title: str = "", replicates: Sequence[str] = ()
) -> None:
    """Plots rows of `metrics.jsonl`; panels whose keys are absent are left out.

    Top: "elbo", "valid_elbo" and every "test_*" (nats), the mean over replicates with a
    band from the lowest to the highest, or a curve of each where they are not seeds but
    have names; in runs of 20 rows or more the first twentieth of the ELBO, where it is
    far off, does not set the lower limit. Below: "accept_prob" and "step_sizes" of each
    move, means over seeds. The abscissa is "epoch", or "step" where there are no
    epochs; replicates come first and moves last.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    scores = [n for n in names if n in _SCORES or n.startswith("test_")]
    scores = [n for n in scores if not n.endswith("_se") and _series(rows, n)[1].size]
    vectors = [n for n in _PER_MOVE if _series(rows, n)[1].size]
    num_panels = bool(scores) + len(vectors)
    if not num_panels:
        raise ValueError(f"nothing to plot in {len(rows)} rows with the keys {names}")
    figure = _figure(7.0, 2.9 * num_panels)
    panels = np.atleast_1d(figure.subplots(num_panels, 1))
    panels[0].set_title(title, fontsize=9)
    if scores:
        _plot_scores(panels[0], rows, scores, replicates)
    for panel, name in zip(panels[bool(scores) :], vectors, strict=True):
        _plot_moves(panel, rows, name, replicates)
    _save(figure, path)


def image_grid(
    images,
    path: PathLike,
    *,
    columns: int,
    title: str = "",
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
) -> None:
    """Writes images f32[N, H, W] or f32[N, H, W, C] side by side, from 0 to 1.

    Values outside are clipped; a last row that is not full ends in grey. Three channels
    are colours; others are grey pictures, side by side.
    """
    rows, figure = in_rows(images, columns), _figure()
    axes = _show(figure, rows)
    axes.set_title(title, fontsize=8)
    height, width = (size + 1 for size in rows.shape[2:4])
    if len(row_labels):
        _tick(axes.set_yticks, row_labels, height)
    if len(column_labels):
        _tick(axes.set_xticks, column_labels, width)
    _save(figure, path)


def _tick(set_ticks, labels, size):
    """Names the rows, or the columns, of so many pixels each at their centres."""
    set_ticks(size / 2 + size * np.arange(len(labels)), labels, fontsize=8)


def reconstructions(originals, reconstructed, path: PathLike, columns=10) -> None:
    """Writes rows of images [N, H, W(, 3)], "data" above its "model" reconstructions.

    The model's are the means of p(x|z) at the encoder's mean.
    """
    columns = min(columns, max(1, len(originals)))
    above, below = (in_rows(x, columns) for x in (originals, reconstructed))
    pairs = np.stack([above, below], axis=1)
    image_grid(
        pairs.reshape(-1, *above.shape[2:]),
        path,
        columns=columns,
        title="test images and their reconstructions",
        row_labels=["data", "model"] * len(above),
    )


def gaps(per_pair, path: PathLike) -> None:
    """Plots the gap between both bounds on log p(x) of each simulated pair, nats [N].

    The gaps rise from left to right; few that stand out make a mean that is large.
    """
    rising = np.sort(np.asarray(per_pair, float))
    series = {"upper less lower bound": (np.arange(1, len(rising) + 1), rising, None)}
    labels = {"xlabel": "images simulated by the model", "ylabel": "gap (nats)"}
    line_plot(series, path, **labels, title="bounds on log p(x) of simulated images")


def missed(log_p, bound, name: str, path: PathLike) -> None:
    """Plots by how much a bound on log p(x) of each image [N] is below AIS's."""
    figure = _figure(5.5, 3.8)
    axes = figure.add_subplot()
    below = np.asarray(log_p) - np.asarray(bound)
    axes.axhline(0.0, color="0.4", linewidth=0.8)
    axes.plot(log_p, below, "o", color=COLOURS[0], markersize=2.5, alpha=0.5)
    axes.set_title(f"what {name} misses of each test image", fontsize=9)
    _label(axes, "log p(x) by AIS (nats)", f"AIS less {name} (nats)")
    _save(figure, path)


def line_plot(
    series, path: PathLike, *, xlabel: str, ylabel: str, logx=False, title: str = ""
) -> None:
    """Plots named curves (x, y, y_se), with bars and bands of standard errors.

    They are over seeds, and NaN or None where there is one. A logarithmic abscissa is
    ticked at the values given if they are few.
    """
    figure = _figure(5.5, 4.2)
    axes = figure.add_subplot()
    for i, (name, (x, y, y_se)) in enumerate(series.items()):
        style = curve_style(i) | {"markersize": 4.5, "capsize": 3}
        axes.errorbar(x, y, y_se, label=name, **style)
        if y_se is not None:
            edges = np.add(y, y_se), np.subtract(y, y_se)
            axes.fill_between(x, *edges, color=style["color"], alpha=0.2, linewidth=0)
    if logx:
        axes.set_xscale("log")
        values = np.unique(np.concatenate([x for x, *_ in series.values()]))
        if len(values) <= 8 and np.all(values[1:] >= 1.9 * values[:-1]):
            axes.set_xticks(values, [f"{value:.3g}" for value in values])
            axes.set_xticks([], minor=True)
    axes.set_title(title, fontsize=9)
    errors = [y_se for _, _, y_se in series.values() if y_se is not None]
    has_bars = bool(errors) and np.isfinite(np.concatenate(errors)).any()
    bars = "bars and bands: ±1 standard error over seeds" if has_bars else None
    outside = {"loc": "outside lower center", "ncols": 2, "fontsize": 8}
    figure.legend(title=bars, frameon=False, **outside)
    _label(axes, xlabel, ylabel)
    _save(figure, path)


def curve_style(i: int) -> dict[str, str]:
    """The colour and marker of the i-th curve of a figure, i >= 0."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}


def _figure(width: float = 1.0, height: float = 1.0) -> Any:
    """Returns an empty figure of that size (inches)."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: PathLike) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160, bbox_inches="tight", pad_inches=0.05)


def _label(axes: Any, xlabel: str, ylabel: str) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel, axisbelow=True)
    axes.grid(color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _series(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Returns x [N] and values [N, ...] of the rows with `name`, and what x is."""
    rows = [row for row in rows if name in row and np.size(row[name])]
    unit = "epoch" if all("epoch" in row for row in rows) else "step"
    x, values = [row[unit] for row in rows], [row[name] for row in rows]
    return np.array(x, float), np.array(values, float), unit


def _plot_scores(axes, rows, names, replicates):
    late, last = [], _series(rows, names[-1])[1][-1]
    for i, name in enumerate(names):
        x, values, unit = _series(rows, name)
        values = values.reshape(len(x), -1)
        label = _SCORES.get(name, name.replace("_", " "))
        style = {"markersize": 3.5} | ({} if len(x) < 40 else {"marker": ""})
        if replicates:
            line = {"linestyle": "-" if name == "elbo" else "--"}
            axes.plot([], color="black", label=label, **line)
            for r, each in enumerate(replicates):
                best = " (best)" if r == np.argmax(last) else ""
                named = {"label": f"{each}{best}"} if i == 0 else {}
                axes.plot(x, values[:, r], **curve_style(r) | style | line | named)
        else:
            axes.plot(x, values.mean(1), label=label, **curve_style(i) | style)
            band = {"color": COLOURS[i], "alpha": 0.25, "linewidth": 0}
            axes.fill_between(x, values.min(1), values.max(1), **band)
        late.append(values[len(x) // 20 if name == "elbo" else 0 :].ravel())
    late = np.concatenate(late)
    late = late[np.isfinite(late)]
    if late.size and np.ptp(late):
        axes.set_ylim(bottom=late.min() - 0.05 * np.ptp(late))
    axes.legend(frameon=False, loc="best" if replicates else "lower right", fontsize=8)
    _label(axes, unit, "nats")


def _plot_moves(
    axes: Any, rows: Rows, name: str, replicates: Sequence[str] = ()
) -> None:
    """Draws a curve for each move; the legend names the first and the last.

    Replicates that have names have a colour each, and all their moves have it.
    """
    import matplotlib as mpl

    label, scale = _PER_MOVE[name]
    x, values, unit = _series(rows, name)
    values = values.reshape(len(x), -1, values.shape[-1])
    num = values.shape[-1]
    style = {"linewidth": 1.2, "marker": "o" * (len(x) == 1), "clip_on": False}
    for r, each in enumerate(replicates):
        curves = axes.plot(x, values[:, r], color=COLOURS[r % len(COLOURS)], **style)
        curves[0].set_label(each)
    if not replicates:
        colours = mpl.colormaps["cividis"](np.linspace(0, 0.93, num))
        for i, curve in enumerate(values.mean(1).T, 1):
            name = f"move {i} of {num}" if i in (1, num) else None
            axes.plot(x, curve, color=colours[i - 1], label=name, **style)
    _label(axes, unit, label)
    if num > 1 and not replicates:
        axes.legend(frameon=False, fontsize=8)
    low, high = axes.dataLim.intervaly
    if scale == "linear":  # a probability
        axes.set_ylim(0, 1.02)
    elif not 0.0 < 5.0 * low < high:  # a logarithmic axis would have a tick or none
        axes.set_ylim(0.0, 1.08 * high or 1.0)
    else:
        axes.set_yscale(scale)
        axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")


def in_rows(images: np.ndarray, columns: int) -> np.ndarray:
    """[N, H, W(, C)] as f32[rows, columns, H, W(, 3)], the last row padded in grey.

    Of other than 3 channels each is a grey picture, from left to right.
    """
    images = np.asarray(images, dtype=float)
    if images.ndim not in (3, 4) or not images.size:
        raise ValueError(
            f"images must be [N, H, W] or [N, H, W, C] and not empty, not "
            f"{images.shape}"
        )
    if images.ndim == 4 and images.shape[3] != 3:
        images = images.swapaxes(2, 3).reshape(*images.shape[:2], -1)
    padding = ((0, -len(images) % columns),) + ((0, 0),) * (images.ndim - 1)
    images = np.pad(images, padding, constant_values=_GREY)
    return images.reshape(-1, columns, *images.shape[1:])


def canvas_of(images: np.ndarray) -> np.ndarray:
    """[rows, columns, H, W(, 3)] as one, with grey lines of one pixel around each."""
    images = np.clip(images, 0.0, 1.0)
    colours = ((0, 0),) * (images.ndim - 4)
    padding = ((0, 0), (0, 0), (0, 1), (0, 1), *colours)
    tiles = np.pad(images, padding, constant_values=_GREY).swapaxes(1, 2)
    rows, height, columns, width = tiles.shape[:4]
    canvas = tiles.reshape(rows * height, columns * width, *tiles.shape[4:])
    return np.pad(canvas, ((1, 0), (1, 0), *colours), constant_values=_GREY)


def _show(figure: Any, images: np.ndarray) -> Any:
    """Shows [rows, columns, H, W(, 3)] with grey lines of one pixel around each."""
    canvas = canvas_of(images)
    scale = 0.62 / (1 + max(images.shape[2:4]))
    figure.set_size_inches(canvas.shape[1] * scale + 0.6, canvas.shape[0] * scale + 0.4)
    axes = figure.add_subplot()
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return axes
