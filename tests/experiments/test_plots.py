"""Figures: valid files that hold what was given, and refusals of bad shapes."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from experiments.evaluate import plots
from experiments.system.errors import Stopped

BLUE = np.array([0x00, 0x72, 0xB2]) / 255
ORANGE = np.array([0xD5, 0x5E, 0x00]) / 255


def read_png(path):
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    return matplotlib.image.imread(path)[..., :3]


def share(pixels, colour):
    """The share of pixels within 2/255 of a colour."""
    return np.mean(np.all(np.abs(pixels - colour) < 2 / 255, axis=-1))


def make_rows(num_rows, *, num_temperatures=3, replicates=()):
    rng = np.random.default_rng(0)
    per_temperature = (*replicates, num_temperatures)
    return [
        {
            "step": 10 * epoch,
            "epoch": epoch,
            "elbo": (-100.0 / (epoch + 1) + rng.normal(size=replicates)).tolist(),
            "accept_prob": rng.uniform(0.5, 0.9, per_temperature).tolist(),
            "step_sizes": rng.uniform(0.05, 0.2, per_temperature).tolist(),
        }
        for epoch in range(num_rows)
    ]


def without(rows, *keys):
    return [{k: v for k, v in row.items() if k not in keys} for row in rows]


@pytest.mark.parametrize("replicates", [(), (4,)])
@pytest.mark.parametrize("num_temperatures", [1, 11])
def test_learning_curves_has_every_panel(tmp_path, num_temperatures, replicates):
    rows = make_rows(25, num_temperatures=num_temperatures, replicates=replicates)
    rows[-1] |= {"test_log_p": -90.0, "test_log_p_se": 0.1}
    plots.learning_curves(rows, tmp_path / "figures" / "curves.png")
    pixels = read_png(tmp_path / "figures" / "curves.png")
    top, bottom = np.array_split(pixels, [len(pixels) // 3])
    assert share(top, BLUE) > 0.001
    assert share(top, ORANGE) > 0.0001
    assert share(bottom, BLUE) == share(bottom, ORANGE) == 0
    assert share(bottom, np.array([0, 34, 78]) / 255) > 0.0005


def test_replicates_with_names_have_a_curve_each_and_the_best_is_named():
    rows = make_rows(25, replicates=(2,))
    rows[-1] |= {"test_log_p": [-91.0, -90.0]}
    axes = plots._figure(7.0, 3.0).add_subplot()
    plots._plot_scores(axes, rows, ["elbo", "test_log_p"], ["rate 1", "rate 2"])
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    elbo, test = "ELBO (training images)", "test log p(x)"
    assert names == [elbo, "rate 1", "rate 2 (best)", test]
    curves = [line.get_ydata() for line in axes.get_lines()]
    np.testing.assert_array_equal(curves[2], [row["elbo"][1] for row in rows])
    np.testing.assert_array_equal(curves[5], [-90.0])
    assert not axes.collections


def test_the_first_measured_test_score_is_shown():
    rows = make_rows(40)
    rows[0] |= {"test_log_p": -200.0}
    axes = plots._figure(7.0, 3.0).add_subplot()
    plots._plot_scores(axes, rows, ["elbo", "test_log_p"], ())
    assert axes.get_ylim()[0] < -200.0


def test_no_two_early_curves_share_a_colour():
    assert len(set(plots.COLOURS)) == len(plots.COLOURS) >= 12


@pytest.mark.parametrize(
    ("missing", "num_panels"),
    [
        ((), 3),
        (("elbo",), 2),
        (("accept_prob",), 2),
        (("epoch", "accept_prob", "step_sizes"), 1),
    ],
)
def test_learning_curves_leaves_out_absent_panels(tmp_path, missing, num_panels):
    plots.learning_curves(without(make_rows(3), *missing), tmp_path / "a.png")
    height = read_png(tmp_path / "a.png").shape[0]
    assert round(height / (2.9 * 160)) == num_panels


def test_learning_curves_of_a_model_without_moves(tmp_path):
    rows = make_rows(3, num_temperatures=0)
    plots.learning_curves(rows, tmp_path / "a.png")
    plots.learning_curves(
        without(rows, "accept_prob", "step_sizes"), tmp_path / "b.png"
    )
    np.testing.assert_array_equal(
        read_png(tmp_path / "a.png"), read_png(tmp_path / "b.png")
    )


def test_learning_curves_of_sparse_and_non_finite_rows(tmp_path):
    rows = make_rows(4)
    del rows[1]["elbo"]
    rows[2]["elbo"] = float("nan")
    plots.learning_curves(rows, tmp_path / "a.png")
    assert share(read_png(tmp_path / "a.png"), BLUE) > 0


@pytest.mark.parametrize("rows", [[], [{"step": 1, "loss": 2.0}]])
def test_learning_curves_needs_something_to_plot(tmp_path, rows):
    with pytest.raises(ValueError, match=f"nothing to plot in {len(rows)} rows"):
        plots.learning_curves(rows, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_image_grid_shows_each_image_in_its_place(tmp_path):
    images = np.zeros((3, 4, 4))
    images[1] = 1.0
    plots.image_grid(images, tmp_path / "a.png", columns=2)
    pixels = read_png(tmp_path / "a.png")
    height, width = pixels.shape[0] // 4, pixels.shape[1] // 4
    assert np.all(pixels[height, width] == 0)
    assert np.all(pixels[height, 3 * width] == 1)
    assert np.all(pixels[3 * height, width] == 0)
    np.testing.assert_allclose(pixels[3 * height, 3 * width], 0.5, atol=0.01)


def test_image_grid_clips_and_keeps_grey_levels(tmp_path):
    images = np.stack([np.full((8, 8), v) for v in (-1.0, 0.25, 0.75, 2.0)])
    plots.image_grid(images, tmp_path / "a.png", columns=4)
    pixels = read_png(tmp_path / "a.png")
    row = pixels[len(pixels) // 2, :, 0]
    middles = [row[int(len(row) * (i + 0.5) / 4)] for i in range(4)]
    np.testing.assert_allclose(middles, [0, 0.25, 0.75, 1], atol=0.01)


def test_reconstructions_alternate_with_their_originals(tmp_path):
    white, black = np.ones((7, 6, 6)), np.zeros((7, 6, 6))
    plots.reconstructions(white, black, tmp_path / "a.png", columns=4)
    pixels = read_png(tmp_path / "a.png")
    rows = [int(len(pixels) * (i + 0.5) / 4) for i in range(4)]
    left, right = (int(pixels.shape[1] * share) for share in (0.4, 0.9))
    np.testing.assert_array_equal(pixels[rows, left, 0], [1, 0, 1, 0])
    np.testing.assert_allclose(pixels[rows, right, 0], [1, 0, 0.5, 0.5], atol=0.01)


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_channels_that_are_no_colours_are_grey_pictures_side_by_side(channels):
    images = np.random.default_rng(0).uniform(size=(4, 3, 2, channels))
    shown = plots.in_rows(images, 2)
    assert shown.shape == (2, 2, 3, 2 * channels)
    for c in range(channels):
        image = shown[1, 0, :, 2 * c : 2 * c + 2]
        np.testing.assert_array_equal(image, images[2, ..., c])


def test_what_cannot_be_drawn_is_a_line(caplog):
    with plots.optional():
        raise ValueError("no such colour\nand more")
    assert caplog.messages == [
        "Pictures are left out that could not be drawn: no such colour"
    ]
    for error in (Stopped("by a signal"), OSError(os.strerror(errno.ENOSPC))):
        with pytest.raises(type(error)), plots.optional():
            raise error


@pytest.mark.parametrize("shape", [(4, 784), (2, 3, 4, 5, 3), (0, 8, 8)])
def test_images_of_a_bad_shape_are_named(tmp_path, shape):
    images = np.zeros(shape)
    with pytest.raises(ValueError, match=rf"\({shape[0]}, {shape[1]}"):
        plots.image_grid(images, tmp_path / "a.png", columns=2)
    with pytest.raises(ValueError, match=rf"\({shape[0]}, {shape[1]}"):
        plots.reconstructions(images, images, tmp_path / "a.png")


def test_gaps_rise_from_left_to_right(tmp_path):
    for name, gaps in (("a", [5.0, 0.1, 0.2]), ("b", [0.1, 0.2, 5.0])):
        plots.gaps(gaps, tmp_path / f"{name}.png")
    one, other = (read_png(tmp_path / f"{name}.png") for name in "ab")
    assert share(one, BLUE) > 0.001
    np.testing.assert_array_equal(one, other)


def test_line_plot_draws_every_series(tmp_path):
    series = {
        "a": ([1, 2, 3], [1.0, 2.0, 3.0], None),
        "b": ([1, 5], [2, 1], [0.1, 0.2]),
    }
    plots.line_plot(series, tmp_path / "a.png", xlabel="x", ylabel="y (nats)")
    pixels = read_png(tmp_path / "a.png")
    assert share(pixels, BLUE) > 0.001
    assert share(pixels, ORANGE) > 0.001


DRAW = """
import sys
from experiments.evaluate import plots
assert "matplotlib" not in sys.modules
plots.line_plot({"a": ([1], [1], None)}, sys.argv[1], xlabel="x", ylabel="y")
assert "matplotlib.pyplot" not in sys.modules
"""


def test_matplotlib_is_imported_late_and_pyplot_never(tmp_path):
    command = [sys.executable, "-W", "error", "-c", DRAW, str(tmp_path / "a.png")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    assert share(read_png(tmp_path / "a.png"), BLUE) > 0


def test_images_in_colour_keep_their_colours(tmp_path):
    images = np.zeros((2, 4, 4, 3))
    images[0], images[1] = BLUE, (2.0, -1.0, 0.5)
    plots.image_grid(images, tmp_path / "a.png", columns=2)
    pixels = read_png(tmp_path / "a.png")
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 4
    np.testing.assert_allclose(pixels[height, width], BLUE, atol=0.01)
    np.testing.assert_allclose(pixels[height, 3 * width], [1, 0, 0.5], atol=0.01)


@pytest.mark.parametrize(("values", "is_log"), [((0.1, 0.3), False), ((0.01, 1), True)])
def test_step_sizes_have_an_axis_that_can_be_read(values, is_log):
    figure = plots._figure(7.0, 3.0)
    rows = [
        {"step": i, "step_sizes": [size, 1.1 * size]} for i, size in enumerate(values)
    ]
    plots._plot_moves(figure.add_subplot(), rows, "step_sizes")
    figure.canvas.draw()
    axes = figure.axes[0]
    assert (axes.get_yscale() == "log") == is_log
    low, high = axes.get_ylim()
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert len(ticks) >= 3
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        "move 1 of 2",
        "move 2 of 2",
    ]
