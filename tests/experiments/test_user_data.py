"""Data of one's own: arrays, files, folders, tensorflow-datasets, and refusals."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from experiments.data import load as datasets
from experiments.data.catalogue import CATALOGUE, TFDS
from experiments.data.dataset import Dataset, digest, for_likelihood
from experiments.system.errors import DataError

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (20, 6, 5), np.uint8)
REALS = RNG.normal(size=(10, 4, 3, 3)).astype(np.float32)


def refusal(call, *args, **kwargs):
    with pytest.raises(DataError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_arrays_of_bytes_are_scaled():
    data = Dataset.from_arrays(BYTES[:15], BYTES[15:])
    np.testing.assert_array_equal(
        data.train, BYTES[:15].reshape(15, 30) / np.float32(255)
    )
    assert data.test.shape == (5, 30) and data.valid is None
    assert (data.image_shape, data.levels, data.is_binary) == ((6, 5), 255, False)
    assert data.digest == digest({"train": data.train, "test": data.test})
    assert data.limits == (0.0, 1.0)


BITS = BYTES > 99


@pytest.mark.parametrize(
    ("array", "levels", "scaled"),
    [
        *((BITS, 1, BITS), (BITS.astype(np.uint8), 1, BITS), (BITS * 1.0, 1, BITS)),
        *((BITS.astype(np.uint16), 1, BITS), (255 * BITS.astype(np.uint8), 255, BITS)),
        (BYTES.astype(np.uint16) * 257, 65535, BYTES / 255),
        (BYTES.astype(np.int64), 1, BYTES),
        (BYTES // 16, 255, BYTES // 16 / 255),
    ],
)
def test_whole_numbers_are_divided_by_their_types_white_unless_they_are_bits(
    array, levels, scaled
):
    data = Dataset.from_arrays(array, array[:2])
    np.testing.assert_allclose(data.train, scaled.reshape(20, 30), rtol=1e-6)
    assert (data.levels, data.is_binary) == (levels, scaled is BITS)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("array", [BYTES // 16, BYTES.astype(np.uint16)])
def test_levels_that_do_not_come_near_to_white_are_counts_or_refused(array, likelihood):
    data = Dataset.from_arrays(array, array[:2])
    message = refusal(for_likelihood, data, likelihood)
    assert f"its largest level is {array.max()}, of" in message
    counts = for_likelihood(data, "poisson")
    np.testing.assert_array_equal(counts.train, array.reshape(20, 30))


def test_grey_images_as_coin_flips_are_warned_of():
    grey = Dataset.from_arrays(BYTES, BYTES[:2], name="faces")
    with pytest.warns(UserWarning, match=r"faces: 7\d% .* discretized_logistic"):
        for_likelihood(grey, "bernoulli")
    for_likelihood(grey, "discretized_logistic")  # and no warning
    for_likelihood(datasets.load("digits"), "bernoulli")


def test_other_numbers_stay_as_they_are():
    data = Dataset.from_arrays(REALS, REALS[:2], REALS[:3])
    np.testing.assert_array_equal(data.valid, REALS[:3].reshape(3, 36))
    assert (data.image_shape, data.levels) == ((4, 3, 3), 1)
    assert data.limits == (REALS.min(), REALS.max())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        *(((16,), (4, 4)), ((12,), (1, 12)), ((3, 2), (3, 2)), ((3, 2, 1), (3, 2))),
        *(((4, 4, c),) * 2 for c in (2, 3, 4, 5)),
    ],
)
def test_shapes_for_pictures(shape, expected):
    data = Dataset.from_arrays(np.zeros((4, *shape)), np.ones((2, *shape)))
    assert data.image_shape == expected
    assert data.is_binary


def test_one_array_is_split_by_its_seed():
    first, again = (Dataset.from_arrays(BYTES) for _ in range(2))
    other = Dataset.from_arrays(BYTES, seed=1, test_share=0.5)
    assert (len(first.train), len(first.test)) == (18, 2)
    assert (len(other.train), len(other.test)) == (10, 10)
    assert first.digest == again.digest != other.digest
    assert "split by seed 1" in other.source
    together = np.concatenate([first.train, first.test])
    rows = lambda x: sorted(map(bytes, np.rint(x * 255).astype(np.uint8)))
    assert rows(together) == rows(BYTES.reshape(20, -1) / 255)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((BYTES, BYTES[:, :5]), "differ in shape"),
        ((BYTES, BYTES / 255.0), "give all arrays in one type"),
        ((np.full((3, 2, 2), np.nan), REALS), "or NaN alone"),
        ((np.full((3, 2, 2), np.inf), REALS), "train has infinite"),
        ((np.array([["a"]]), REALS), "use numbers"),
        ((np.zeros(5),), r"float64\[5\]"),
        ((np.zeros((0, 4)),), r"\[0, 4\]"),
        ((np.zeros((1, 4)),), "cannot be split"),
        *(((np.zeros((9, c, 8, 8)),), "channels first") for c in (1, 2, 3, 4, 5)),
        ((np.zeros((9, 3, 8, 7)),), r"use x.transpose\(0, 2, 3, 1\)"),
    ],
)
def test_bad_arrays_are_refused(arrays, message):
    with pytest.raises(DataError, match=message):
        Dataset.from_arrays(*arrays)


MASK = RNG.random(BYTES.shape) < 0.7


def test_a_mask_says_which_values_are_missing(tmp_path):
    np.savez(tmp_path / "mine.npz", images=BYTES, mask=MASK)
    data = datasets.load(str(tmp_path / "mine.npz"))
    given = Dataset.from_arrays(np.where(MASK, BYTES / np.float32(255), np.nan))
    np.testing.assert_array_equal(data.train, given.train)
    np.testing.assert_array_equal(data.test, given.test)
    assert data.digest == given.digest != Dataset.from_arrays(BYTES).digest
    assert data.levels == 255 and not np.isnan(data.limits).any()
    counts = for_likelihood(data, "poisson", missing=True)
    seen = counts.train[~np.isnan(counts.train)]
    assert len(seen) < counts.train.size and (seen % 1 == 0).all()
    assert "use model.missing=True" in refusal(for_likelihood, data, "poisson")


def test_bits_with_missing_values_are_bits():
    assert Dataset.from_arrays(BITS, BITS, masks={"train": MASK}).is_binary


@pytest.mark.parametrize("mask", [MASK[:9], MASK * 0.5])
def test_masks_that_do_not_fit_are_refused(mask):
    message = refusal(Dataset.from_arrays, BYTES, BYTES, masks={"train": mask})
    assert message.endswith("use bools [20, 6, 5]")
    message = refusal(Dataset.from_arrays, BYTES, BYTES, masks={"valid": MASK})
    assert "of an array that is there" in message


def test_counts_are_what_the_bytes_and_the_digits_were():
    data = for_likelihood(Dataset.from_arrays(BYTES, BYTES[:2]), "poisson")
    np.testing.assert_array_equal(data.train, BYTES.reshape(20, -1))
    assert data.limits == (BYTES.min(), BYTES.max())
    digits = for_likelihood(datasets.load("digits"), "negative_binomial")
    assert set(np.unique(digits.train)) == set(range(17))
    assert digits.digest == datasets.load("digits").digest


@pytest.mark.parametrize(
    ("array", "likelihood"),
    [
        *((REALS, "bernoulli"), (REALS, "poisson"), (REALS, "discretized_logistic")),
        (np.abs(REALS) / 10, "negative_binomial"),
    ],
)
def test_values_that_the_likelihood_does_not_take_are_refused(array, likelihood):
    data = Dataset.from_arrays(array, array[:2], name="mine")
    message = refusal(for_likelihood, data, likelihood)
    assert message.startswith("dataset=mine: train: the value")
    assert f"likelihood={likelihood!r}" in message
    assert for_likelihood(data, "gaussian") is data


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_files_of_arrays(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    if suffix == ".npy":
        np.save(path, BYTES)
        expected = Dataset.from_arrays(BYTES)
    else:
        np.savez(path, train=BYTES[:9], test=BYTES[9:], valid=BYTES[:2], labels=[1])
        expected = Dataset.from_arrays(BYTES[:9], BYTES[9:], BYTES[:2])
    data = datasets.load(str(path))
    assert data.digest == expected.digest
    assert data.name == str(path) and data.source.startswith(path.name)
    assert datasets.load(f"gone/{path.name}", tmp_path).digest == data.digest
    assert datasets.sizes(str(path)) == (len(data.train), (6, 5))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        *(("images", "train"), ("X y", "train -"), ("x_train y_train", "train -")),
        ("train test val", "train test valid"),
        ("X_train Y_train X_test", "train - test"),
        ("test_images trainImages validation_images", "test train valid"),
        ("Training TESTING __MACOSX/._Training", "train test -"),
        *(("a b", None), ("train dev", None), ("train Train test", None)),
        *(("test val", None), ("train train_test", None), ("y", None)),
    ],
)
def test_arrays_are_of_the_split_that_their_names_say(tmp_path, keys, expected):
    arrays = {key: BYTES + np.uint8(i) for i, key in enumerate(keys.split())}
    np.savez(tmp_path / "a.npz", **arrays)
    if expected is None:
        message = refusal(datasets.load, str(tmp_path / "a.npz"))
        assert f"a.npz holds {', '.join(arrays)}: name them train" in message
        return
    splits = dict(zip(expected.split(), arrays.values()))
    splits.pop("-", None)
    data = datasets.load(str(tmp_path / "a.npz"))
    assert data.digest == Dataset.from_arrays(**splits).digest


def save_images(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:02}.png")


def test_folders_of_images(tmp_path):
    save_images(tmp_path / "train", BYTES[:12])
    save_images(tmp_path / "test", BYTES[12:])
    data = datasets.load(str(tmp_path))
    assert data.digest == Dataset.from_arrays(BYTES[:12], BYTES[12:]).digest
    colour = RNG.integers(0, 256, (6, 5, 3), np.uint8)
    save_images(tmp_path / "test" / "deeper", [colour])
    data = datasets.load(str(tmp_path))
    assert data.image_shape == (6, 5, 3)
    np.testing.assert_array_equal(data.test[-1], colour.ravel() / np.float32(255))
    flat = datasets.load(str(tmp_path / "train"))
    assert flat.digest == Dataset.from_arrays(BYTES[:12]).digest


FOLDERS = {
    "Train/a Test/b validation/c": "train test valid",
    "TRAINING/a val/b": "train valid",
    "train_images/a test_images/b": "train test",
    "cats/train/a cats/test/b dogs/train/c": "train test train",
    "cats/a dogs/b": "train train",
    "train/a __MACOSX/train/b train/.c ._train/d": "train - - -",
    "train/a dev/b": "is in no folder of a split, as others are of train",
    "a test/b": "is in no folder of a split, as others are of test",
    "test/a val/b": "has no images for train",
}


@pytest.mark.parametrize("names", FOLDERS)
def test_images_are_of_the_split_that_a_folder_says(tmp_path, names):
    splits = {}
    for i, (name, split) in enumerate(zip(names.split(), FOLDERS[names].split())):
        save_images(tmp_path / name, BYTES[2 * i : 2 * i + 6])
        splits.setdefault(split, []).append(BYTES[2 * i : 2 * i + 6])
    if "images" in FOLDERS[names] or "folder" in FOLDERS[names]:
        assert FOLDERS[names] in refusal(datasets.load, str(tmp_path))
        return
    splits.pop("-", None)
    arrays = {split: np.concatenate(each) for split, each in splits.items()}
    data = datasets.load(str(tmp_path))
    assert data.digest == Dataset.from_arrays(**arrays).digest


def test_images_whose_own_names_say_splits_are_refused(tmp_path):
    for name in ("train_0.png", "train_1.png", "test_0.png"):
        GREY.save(tmp_path / name)
    message = refusal(datasets.load, str(tmp_path))
    assert "called test and train: put them into folders" in message


def test_a_split_whose_folder_has_no_images_is_refused(tmp_path):
    save_images(tmp_path, BYTES)
    (tmp_path / "test").mkdir()
    assert "has no images for test" in refusal(datasets.load, str(tmp_path))


GREY = Image.fromarray(BYTES[0])
COLOUR = Image.fromarray(RNG.integers(0, 256, (6, 5, 3), np.uint8))
DEEP = BYTES[0].astype(np.uint16) * 257
REAL = (BYTES[0] / 255).astype(np.float32)


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        (GREY.convert("LA"), "png", BYTES[0]),
        (GREY.convert("1"), "png", np.asarray(GREY.convert("1"))),
        (COLOUR.convert("RGBA"), "png", np.asarray(COLOUR)),
        (COLOUR.quantize(16), "png", np.asarray(COLOUR.quantize(16).convert("RGB"))),
        (COLOUR.convert("CMYK"), "tif", np.asarray(COLOUR)),
        (Image.fromarray(DEEP), "png", DEEP),
        (Image.fromarray(DEEP), "tif", DEEP),
        (Image.fromarray(DEEP.astype(np.int32)), "pgm", DEEP),
        (GREY, "pgm", BYTES[0]),
        (Image.fromarray(REAL), "tif", REAL),
    ],
)
def test_images_of_other_modes_keep_their_levels(tmp_path, image, suffix, expected):
    for i in range(10):
        image.save(tmp_path / f"{i}.{suffix}")
    data = datasets.load(str(tmp_path))
    assert data.digest == Dataset.from_arrays(np.stack([expected] * 10)).digest


def test_a_photograph_is_turned_upright(tmp_path):
    halves = np.repeat([[0, 255]], 8, 0).repeat(8, 1).astype(np.uint8)  # black left
    turned = Image.Exif()
    turned[0x0112] = 6  # by 90 degrees clockwise
    for i in range(10):
        Image.fromarray(halves).save(tmp_path / f"{i}.jpg", exif=turned, quality=100)
    data = datasets.load(str(tmp_path))
    assert data.image_shape == (16, 8)
    image = data.train[0].reshape(16, 8)
    assert image[:8].max() < 0.1 and image[8:].min() > 0.9


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparent_images_and_films_are_refused(tmp_path, mode):
    image = COLOUR.convert("L" if mode == "LA" else "RGB")
    if mode == "P":
        image.quantize(4).save(tmp_path / "0.png", transparency=0)
    else:
        image.putalpha(GREY)
        image.save(tmp_path / "0.png")
    assert "0.png is transparent" in refusal(datasets.load, str(tmp_path))
    (tmp_path / "0.png").unlink()
    COLOUR.save(tmp_path / "0.gif", save_all=True, append_images=[GREY])
    assert "0.gif has several frames" in refusal(datasets.load, str(tmp_path))


def test_images_of_different_depths_are_refused(tmp_path):
    save_images(tmp_path, [BYTES[0], DEEP])
    message = refusal(datasets.load, str(tmp_path))
    assert "01.png is (6, 5) of uint16, not (6, 5) of uint8" in message


def test_bad_paths_are_refused(tmp_path):
    assert "no such file" in refusal(datasets.load, str(tmp_path / "no.npz"))
    (tmp_path / "b.npz").write_bytes(b"nothing")
    assert "cannot be read" in refusal(datasets.load, str(tmp_path / "b.npz"))
    np.save(tmp_path / "c.npy", np.array([{}]), allow_pickle=True)
    assert "cannot be read" in refusal(datasets.load, str(tmp_path / "c.npy"))
    (tmp_path / "z.npz").write_bytes(b"PK\x03\x04 and no more")
    assert "cannot be read" in refusal(datasets.load, str(tmp_path / "z.npz"))
    (tmp_path / "d.txt").write_text("nothing")
    assert "use an .npz" in refusal(datasets.load, str(tmp_path / "d.txt"))
    (tmp_path / "empty").mkdir()
    assert "has no images" in refusal(datasets.load, str(tmp_path / "empty"))
    save_images(tmp_path / "sizes", [BYTES[0], BYTES[1][:4]])
    assert "01.png is (4, 5)" in refusal(datasets.load, str(tmp_path / "sizes"))
    (tmp_path / "sizes" / "01.png").write_bytes(b"nothing")
    assert "no image" in refusal(datasets.load, str(tmp_path / "sizes"))


def test_a_data_set_given_in_python_cannot_be_loaded():
    assert "train_and_evaluate" in refusal(datasets.load, "given")


def test_mnists_siblings_have_their_names_and_files():
    for name in ("fashion_mnist", "kmnist"):
        assert datasets.is_named(name) and datasets.is_named(f"{TFDS}{name}")
        assert datasets.sizes(f"{TFDS}{name}") == datasets.sizes("mnist")
        assert CATALOGUE[name].files == CATALOGUE["mnist"].files


def write_idx(path, images):
    import gzip

    path.parent.mkdir(parents=True, exist_ok=True)
    header = b"\x00\x00\x08\x03" + b"".join(
        n.to_bytes(4, "big") for n in (len(images), 28, 28)
    )
    path.write_bytes(gzip.compress(header + images.tobytes(), mtime=0))


@pytest.fixture
def small_fashion(tmp_path, monkeypatch):
    """Small files of Fashion-MNIST's form, whose digests TFDS is told."""
    import hashlib

    import tensorflow_datasets as tfds

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = RNG.integers(0, 256, (7, 28, 28), np.uint8)
    files = CATALOGUE["fashion_mnist"].files
    base = tfds.builder_cls("fashion_mnist")
    infos = dict(base.url_infos)
    for split, part in (("train", images[:5]), ("test", images[5:])):
        path = tmp_path / "fashion_mnist" / files[split]
        write_idx(path, part)
        url = CATALOGUE["fashion_mnist"].home + files[split]
        content = path.read_bytes()
        infos[url] = tfds.download.checksums.UrlInfo(
            size=len(content),
            checksum=hashlib.sha256(content).hexdigest(),
            filename=files[split],
        )
    monkeypatch.setattr(base, "url_infos", infos)
    return tmp_path, images


def test_fashion_mnist_is_read_from_local_files_and_refused_where_damaged(
    small_fashion, monkeypatch
):
    root, images = small_fashion
    counts = CATALOGUE["fashion_mnist"]._replace(num_train=5, num_test=2)
    monkeypatch.setitem(CATALOGUE, "fashion_mnist", counts)
    data = datasets.load("tfds:fashion_mnist", root)
    rows = lambda x: sorted(map(bytes, np.rint(x * 255).astype(np.uint8)))
    assert rows(data.train) == sorted(map(bytes, images[:5].reshape(5, -1)))
    assert rows(data.test) == sorted(map(bytes, images[5:].reshape(2, -1)))
    assert (data.name, data.levels) == ("fashion_mnist", 255)
    assert datasets.load("fashion_mnist", root).digest == data.digest
    path = root / "fashion_mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(DataError, match="damaged"):
        datasets.load("fashion_mnist", root)


def test_prepared_data_sets_of_tensorflow_datasets(tmp_path):
    import tensorflow_datasets as tfds

    colour = RNG.integers(0, 256, (12, 6, 5, 3), np.uint8)

    class SmallColours(tfds.core.GeneratorBasedBuilder):
        """Twelve images in colour."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Tensor(shape=(6, 5, 3), dtype=np.uint8)
            features = tfds.features.FeaturesDict({"image": image})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, image in enumerate(colour):
                yield i, {"image": image}

    data = datasets.load("tfds:small_colours", tmp_path)
    assert data.image_shape == (6, 5, 3) and data.levels == 255
    assert (len(data.train), len(data.test)) == (11, 1)
    assert "small_colours" in data.source
    assert (tmp_path / "small_colours").is_dir()
    again = datasets.load("tfds:small_colours", tmp_path)
    assert again.digest == data.digest


def test_what_tensorflow_datasets_cannot_give_is_refused_in_a_line(tmp_path):
    message = refusal(datasets.load, "tfds:no_such_images", tmp_path)
    assert message.startswith("dataset=tfds:no_such_images: tensorflow-datasets cannot")


def test_splits_in_other_numbers_are_refused():
    bits = (BYTES > 128).astype(np.uint8)
    message = refusal(Dataset.from_arrays, bits, BYTES)
    assert "train holds 0 and 1 alone and other arrays do not" in message
    Dataset.from_arrays(BYTES, np.zeros_like(BYTES[:2]))  # a black test image is one


def test_numbers_that_single_precision_cannot_tell_apart_are_refused():
    x = RNG.normal(size=(20, 5))
    Dataset.from_arrays(x + 1e3)
    for array in (x + 1e8, x * 1e300, RNG.integers(2**30, 2**30 + 9, (20, 5))):
        message = refusal(Dataset.from_arrays, array)
        assert "that float32 cannot tell apart" in message


def test_folders_that_are_links_are_read_and_loops_end(tmp_path):
    save_images(tmp_path / "elsewhere", BYTES[:12])
    save_images(tmp_path / "faces" / "real", BYTES[12:])
    (tmp_path / "faces" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "faces" / "loop").symlink_to(tmp_path / "faces")
    (tmp_path / "faces" / "same").symlink_to(tmp_path / "faces" / "real")
    data = datasets.load(str(tmp_path / "faces"))
    assert data.digest == Dataset.from_arrays(BYTES).digest


def test_colours_of_16_bits_are_refused(tmp_path):
    def part(kind, content):
        checked = kind + content
        code = struct.pack(">I", zlib.crc32(checked))
        return struct.pack(">I", len(content)) + checked + code

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)  # 2 x 1 of 16-bit RGB
    rows = zlib.compress(bytes(1 + 2 * 6))
    parts = part(b"IHDR", header) + part(b"IDAT", rows) + part(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    assert "16 bits for each colour" in refusal(datasets.load, str(tmp_path))


def test_two_masks_of_one_split_are_refused(tmp_path):
    mask = np.ones_like(BYTES, bool)
    np.savez(tmp_path / "a.npz", train=BYTES, mask=mask, train_mask=mask)
    message = refusal(datasets.load, str(tmp_path / "a.npz"))
    assert "holds mask and train_mask: give one" in message
