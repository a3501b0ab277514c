"""The pictures of a finished run, in its folder and in TensorBoard."""

from functools import partial

import jax
import numpy as np

from experiments.evaluate import plots

NUM_SAMPLES = 100
NUM_RECONSTRUCTED = 30
TRAVERSED = 10  # latents, those that change the picture most
STEPS = np.linspace(-2.5, 2.5, 11)  # of a traversal, in prior standard deviations


@plots.optional()
def draw(run, evaluator, part):
    """Writes pictures of a `Run`, one replicate; `part` is its part of results.json."""
    folder, shown = run.folder / "plots", partial(_shown, evaluator.dataset)
    images, z = evaluator.simulate(run.params, np.arange(NUM_SAMPLES))
    draws, means = shown(images), shown(run.decode_rows(z, images))
    title = "samples: {} p(x|z), z from the prior".format
    grid = partial(plots.image_grid, columns=10)
    grid(means, folder / "samples.png", title=title("means of"))
    grid(draws, folder / "sample_pixels.png", title=title("pixels drawn from"))
    x = evaluator.test_images(evaluator.images[:NUM_RECONSTRUCTED])
    codes, _ = run.encode_rows(x)
    means = shown(run.decode_rows(codes, x))
    plots.reconstructions(shown(x), means, folder / "reconstructions.png")
    _draw_traversals(run, shown, codes[0], x[0], folder / "traversals.png")
    if gap := part.get("bidirectional"):
        plots.gaps(gap["per_example_gap"], folder / "bounds.png")
    values = (part["test"][name]["per_example"] for name in ("log_p", "iwae"))
    name = f"IWAE-{evaluator.settings.iwae_samples}"
    plots.missed(*values, name, folder / "iwae.png")
    _to_tensorboard(folder, run.folder / "tensorboard", run.step)


def in_training(setup, dataset):
    """`Run` -> pictures for TensorBoard: samples from the same latents each time."""
    keys = jax.random.split(jax.random.key(0), NUM_SAMPLES)

    rows = dataset.train[np.arange(NUM_SAMPLES) % len(dataset.train)]

    @jax.jit
    def means(theta):
        def one(key, row):
            model = setup.model.given(row)
            return model.decode(theta, model.simulate(key, theta)[1])

        return jax.vmap(one)(keys, rows)

    def draw(run):
        found = {}
        with plots.optional():
            grid = plots.in_rows(_shown(dataset, means(run.theta)), 10)
            grid = np.atleast_3d(plots.canvas_of(grid))
            found["training/samples"] = (255 * grid).astype(np.uint8)
        return found

    return draw


def _draw_traversals(run, shown, code, row, path):
    """A row for each of the latents that matter: an image's code, that latent moved."""
    z = np.tile(code, (len(code), len(STEPS), 1))
    every = np.arange(len(code))
    z[every, :, every] = STEPS

    def decode(z):
        return run.decode_rows(z, np.broadcast_to(row, (len(z), len(row))))

    ends = decode(z[:, (0, -1)].reshape(-1, len(code)))
    first, last = ends.reshape(len(code), 2, -1).swapaxes(0, 1)
    chosen = np.argsort(-np.mean(np.abs(last - first), axis=1))[:TRAVERSED]
    means = decode(z[chosen].reshape(-1, len(code)))
    plots.image_grid(
        shown(means),
        path,
        columns=len(STEPS),
        title="means of p(x|z): a test image's code, one latent moved",
        row_labels=[f"$z_{{{i}}}$" for i in chosen],
        column_labels=[f"{step:g}" for step in STEPS],
    )


def _shown(dataset, images):
    """Images [N, X] as [N, H, W(, C)], scaled to [0, 1] by the data's limits.

    What is missing is grey.
    """
    low, high = dataset.limits
    images = np.asarray(images).reshape(len(images), -1)[:, : dataset.size]
    images = (images - low) / ((high - low) or 1.0)
    return np.nan_to_num(images, nan=0.5).reshape(-1, *dataset.image_shape)


def _to_tensorboard(folder, events, step):
    """Shows the folder's pictures in TensorBoard, each by its name."""
    from matplotlib.image import imread
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(events), filename_suffix=".pictures") as writer:
        for path in sorted(folder.glob("*.png")):
            picture = (255 * imread(path)[..., :3]).astype(np.uint8)
            writer.add_image(path.stem, picture, step, dataformats="HWC")
