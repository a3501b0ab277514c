"""Data sets: what is loaded, where it is cached, and what is refused."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import json
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.io import savemat

from experiments.data import downloads, tfds_images
from experiments.data import load as datasets
from experiments.data.catalogue import CATALOGUE, STUDY_MD5, STUDY_SOURCE
from experiments.system.errors import DataError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))
    monkeypatch.delenv("AIS_JAX_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")


def set_home(monkeypatch, name, home):
    monkeypatch.setitem(CATALOGUE, name, CATALOGUE[name]._replace(home=home))


def images_like_study(levels, seed=0):
    """Columns of pixels, as in chardata.mat: multiples of 1/levels."""
    rng = np.random.default_rng(seed)
    data, testdata = (rng.integers(0, levels + 1, (784, n)) for n in (7, 3))
    return {"data": data / levels, "testdata": testdata / levels}


def write_chardata(folder, levels=255, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / "chardata.mat", images_like_study(levels, seed))
    return folder / "chardata.mat"


def load_foreign(data_dir):
    with pytest.warns(UserWarning, match="not the IWAE study's file"):
        return datasets.load("omniglot", data_dir)


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_digits():
    data = datasets.load("digits")
    assert data.train.shape == (1500, 64)
    assert data.test.shape == (297, 64)
    assert data.valid is None
    assert data.image_shape == (8, 8)
    assert not data.is_binary
    assert data.train.dtype == data.test.dtype == np.float32
    assert data.train.min() == 0 and data.train.max() == 1
    assert np.array_equal(data.train * 16, np.rint(data.train * 16))
    assert data.digest == datasets.load("digits", "/nowhere").digest


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match=r'pip install -e "\.\[digits\]"'):
        datasets.check_available("digits")


@pytest.mark.parametrize("call", [datasets.load, datasets.check_available])
def test_unknown_name_is_answered_with_the_nearest(call):
    with pytest.raises(DataError, match="did you mean 'omniglot'") as error:
        call("omniglott", "")
    assert all(name in str(error.value) for name in datasets.NAMES)


@pytest.mark.parametrize(
    ("name", "counts", "mean"),
    [
        ("mnist", (60000, 10000, None), 0.1307),
        ("omniglot", (24345, 8070, None), 0.0830),
        ("binarized_mnist", (50000, 10000, 10000), 0.1306),
    ],
)
def test_real_data(real, name, counts, mean):
    data = real(name)
    splits = (data.train, data.test, data.valid)
    for split, count in zip(splits, counts, strict=True):
        assert (split is None) == (count is None)
        if split is not None:
            assert split.shape == (count, 784) and split.dtype == np.float32
            assert split.min() == 0 and split.max() == 1
    assert data.train.mean() == pytest.approx(mean, abs=1e-4)
    assert data.test.mean() == pytest.approx(mean, abs=3e-3)
    assert data.name == name and data.image_shape == (28, 28)
    assert data.is_binary == (name == "binarized_mnist")
    assert data.is_binary == bool(np.isin(data.test, (0, 1)).all())


def test_mnist_holds_the_images_of_the_original_file(real, real_dir):
    data = real("mnist")
    raw = gzip.decompress((real_dir / "mnist/t10k-images-idx3-ubyte.gz").read_bytes())
    raw = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 784)
    loaded = np.rint(data.test * 255).astype(np.uint8)
    assert sorted(map(bytes, loaded)) == sorted(map(bytes, raw))


def test_binarized_mnist_holds_the_images_of_the_original_file(real, real_dir):
    data = real("binarized_mnist")
    path = real_dir / "binarized_mnist/binarized_mnist_valid.amat.gz"
    with gzip.open(path, "rt") as file:
        raw = np.loadtxt(file, max_rows=100).astype(np.uint8)
    loaded = set(map(bytes, data.valid.astype(np.uint8)))
    assert all(bytes(row) in loaded for row in raw)


@pytest.mark.parametrize("name", ["mnist", "binarized_mnist"])
def test_images_are_upright(real, name):
    # Digits are taller than wide: their ink spreads further down than across.
    images = real(name).test.reshape(-1, 28, 28)
    across, down = images.mean((0, 1)), images.mean((0, 2))
    place = np.arange(28) - 13.5
    assert (down @ place**2) > 1.2 * (across @ place**2)


def test_omniglot_is_upright(tmp_path):
    upright = np.zeros((28, 28))
    upright[2, 20] = 1  # Row 2, column 20, so entry 20 * 28 + 2 by columns.
    columns = {"data": upright.T.reshape(784, 1), "testdata": np.zeros((784, 1))}
    assert columns["data"][20 * 28 + 2] == 1
    savemat(tmp_path / "chardata.mat", columns)
    image = load_foreign(tmp_path).train[0].reshape(28, 28)
    assert np.array_equal(image, upright)


def test_rebuilt_omniglot_says_so(real, real_dir):
    data = real("omniglot")
    if data.source == STUDY_SOURCE:
        pytest.skip("the original file is here, not the rebuilt one")
    content = (real_dir / "omniglot/chardata.mat").read_bytes()
    assert data.source == f"rebuilt split (md5 {hashlib.md5(content).hexdigest()})"


def test_second_load_needs_no_tensorflow_datasets(real, real_dir):
    digest = real("mnist").digest
    code = f"""
import sys
from experiments.data import load
data = load.load("mnist", {str(real_dir)!r})
print(data.digest, "tensorflow_datasets" in sys.modules)
"""
    assert python(code) == f"{digest} False"


def test_import_is_light():
    heavy = {"tensorflow_datasets", "scipy", "sklearn", "PIL", "jax"}
    code = "import sys, experiments.data.load; print(*sys.modules)"
    assert not heavy & set(python(code).split())


@pytest.fixture
def serve():
    """Folder -> the address at which this machine serves it over HTTP."""
    with contextlib.ExitStack() as stack:

        def start(folder):
            handler = functools.partial(
                http.server.SimpleHTTPRequestHandler, directory=folder
            )
            running = stack.enter_context(
                http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            )
            threading.Thread(target=running.serve_forever).start()
            stack.callback(running.shutdown)
            return f"http://127.0.0.1:{running.server_port}/"

        yield start


@pytest.fixture
def server(serve, real_dir):
    """The originals over HTTP, from this machine."""
    return serve(real_dir)


@pytest.mark.slow
def test_downloaded_mnist_equals_local_mnist(real, server, tmp_path, monkeypatch):
    digest = real("mnist").digest
    set_home(monkeypatch, "mnist", f"{server}mnist/")
    assert datasets.load("mnist", tmp_path).digest == digest
    set_home(monkeypatch, "mnist", "http://127.0.0.1:9/")
    assert datasets.load("mnist", tmp_path).digest == digest


def test_a_server_without_the_file_counts_as_unreachable(server, tmp_path, monkeypatch):
    set_home(monkeypatch, "mnist", f"{server}no_such_folder/")
    with pytest.raises(DataError, match="cannot be reached"):
        datasets.check_available("mnist", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "omniglot", "binarized_mnist"])
@pytest.mark.parametrize("call", [datasets.load, datasets.check_available])
def test_offline_error_says_what_is_missing(call, name, tmp_path, monkeypatch):
    set_home(monkeypatch, name, "http://127.0.0.1:9/")
    with pytest.raises(DataError) as error:
        call(name, tmp_path)
    message = str(error.value)
    assert all(file in message for file in CATALOGUE[name].files.values())
    assert str(tmp_path / name) in message and str(tmp_path / ".cache") in message
    assert "--config.data_dir" in message
    assert not any(tmp_path.iterdir())


def test_default_data_dir(tmp_path, monkeypatch):
    write_chardata(tmp_path / "mine")
    monkeypatch.setenv("AIS_JAX_DATA", str(tmp_path / "mine"))
    datasets.check_available("omniglot", None)
    assert load_foreign("").train.shape == (7, 784)
    monkeypatch.delenv("AIS_JAX_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    write_chardata(tmp_path / ".cache/ais_jax/data/omniglot", seed=1)
    assert load_foreign(None).digest == load_foreign("~/.cache/ais_jax/data").digest


@pytest.mark.parametrize(
    ("name", "file", "size"),
    [
        ("mnist", "train-images-idx3-ubyte.gz", 9912422),
        ("binarized_mnist", "binarized_mnist_train.amat.gz", 78400000),
    ],
)
def test_truncated_originals_are_refused(name, file, size, tmp_path):
    whole = gzip.compress(b"0 1 0 1\n" * 1000)
    for each in CATALOGUE[name].files.values():
        end = ".gz" if each.endswith(".amat") else ""
        (tmp_path / f"{each}{end}").write_bytes(whole[:-10])
    with pytest.raises(DataError, match="truncated or damaged") as error:
        datasets.load(name, tmp_path)
    message = str(error.value)
    assert str(tmp_path / file) in message and str(size) in message
    assert "Replace it by a fresh copy" in message


def test_truncated_copy_of_real_mnist_is_refused(real_dir, tmp_path):
    if not (real_dir / "mnist").is_dir():
        pytest.skip("no originals of mnist")
    for file in CATALOGUE["mnist"].files.values():
        (tmp_path / file).write_bytes((real_dir / "mnist" / file).read_bytes()[:-1])
    with pytest.raises(DataError, match=r"9912421 bytes.* 9912422 bytes"):
        datasets.load("mnist", tmp_path)


def test_foreign_chardata_warns_with_both_digests(tmp_path):
    path = write_chardata(tmp_path / "omniglot")
    own = hashlib.md5(path.read_bytes()).hexdigest()
    for _ in ("from the file", "from the cache"):
        with pytest.warns(UserWarning, match=f"{STUDY_MD5}.*{own}"):
            data = datasets.load("omniglot", tmp_path)
        assert data.source == f"user's copy (md5 {own})"


@pytest.mark.parametrize("damage", ["truncated", "range", "shape", "keys"])
def test_damaged_chardata_is_refused(damage, tmp_path):
    path = write_chardata(tmp_path)
    matrices = images_like_study(255)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "range":
        savemat(path, {**matrices, "data": 255 * matrices["data"]})
    elif damage == "shape":
        savemat(path, {**matrices, "data": np.zeros((1568, 5))})
    else:
        savemat(path, {"data": matrices["data"]})
    with pytest.raises(DataError, match=r"chardata.mat is truncated or damaged"):
        datasets.load("omniglot", tmp_path)


def test_a_gzip_bomb_is_read_up_to_the_known_size(tmp_path):
    path, known = tmp_path / "x.amat.gz", SimpleNamespace(size=1000, checksum="")
    path.write_bytes(gzip.compress(bytes(10**8), 1))
    tracemalloc.start()
    with pytest.raises(DataError, match="1001 bytes were read"):
        tfds_images._verified(path, "x.amat", known)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**6


def test_a_mat_bomb_is_read_up_to_the_known_size(tmp_path):
    packed = zlib.compress(bytes(downloads._LARGEST + 1), 1)
    header = bytes(126) + b"IM" + struct.pack("<II", 15, len(packed))
    (tmp_path / "chardata.mat").write_bytes(header + packed)
    with pytest.raises(DataError, match="expands to more than"):
        datasets.load("omniglot", tmp_path)


def test_download_with_another_digest_is_not_used(tmp_path, monkeypatch, serve):
    home = serve(write_chardata(tmp_path / "server").parent)
    set_home(monkeypatch, "omniglot", home)
    with pytest.raises(DataError, match="does not match the known hash"):
        datasets.load("omniglot", tmp_path / "data")
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_download_with_the_digest_is_kept(tmp_path, monkeypatch, serve):
    content = write_chardata(tmp_path / "server").read_bytes()
    md5 = hashlib.md5(content).hexdigest()
    for module in (downloads, datasets):
        monkeypatch.setattr(module, "STUDY_MD5", md5)
    home = serve(tmp_path / "server")
    set_home(monkeypatch, "omniglot", home)
    data = datasets.load("omniglot", tmp_path / "data")
    assert data.source == STUDY_SOURCE
    kept = tmp_path / "data/omniglot"
    assert [path.name for path in kept.iterdir()] == ["chardata.mat"]
    assert (kept / "chardata.mat").read_bytes() == content


@pytest.mark.parametrize(("levels", "dtype"), [(255, np.uint8), (254, np.float32)])
def test_cache_is_compact_and_exact(levels, dtype, tmp_path):
    write_chardata(tmp_path, levels)
    first, second = load_foreign(tmp_path), load_foreign(tmp_path)
    with np.load(tmp_path / ".cache/omniglot.npz", allow_pickle=False) as stored:
        assert stored["train"].dtype == dtype
    assert first.digest == second.digest and first.source == second.source
    assert np.array_equal(first.train, second.train)
    expected = images_like_study(levels)["data"].T.reshape(-1, 28, 28)
    expected = expected.transpose(0, 2, 1).reshape(-1, 784).astype(np.float32)
    np.testing.assert_array_equal(first.train, expected)


def test_cache_outlives_the_originals(tmp_path):
    path = write_chardata(tmp_path)
    digest = load_foreign(tmp_path).digest
    path.unlink()
    datasets.check_available("omniglot", tmp_path)
    assert load_foreign(tmp_path).digest == digest


def test_changed_originals_are_noticed(tmp_path):
    write_chardata(tmp_path)
    before = load_foreign(tmp_path)
    path = write_chardata(tmp_path, seed=1)
    after = load_foreign(tmp_path)
    assert after.digest != before.digest
    assert hashlib.md5(path.read_bytes()).hexdigest() in after.source


def damage_cache(path, damage):
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "pickle":
        np.savez(path, meta=np.array([{}], dtype=object))
    else:
        with np.load(path) as stored:
            arrays = dict(stored)
        arrays["test"][0, 0] ^= 1
        np.savez(path, **arrays)


@pytest.mark.parametrize("damage", ["truncated", "empty", "pickle", "one pixel"])
def test_damaged_cache_is_rebuilt(damage, tmp_path):
    path = write_chardata(tmp_path)
    digest = load_foreign(tmp_path).digest
    damage_cache(tmp_path / ".cache/omniglot.npz", damage)
    with pytest.warns(UserWarning, match=r"omniglot.npz is damaged"):
        assert load_foreign(tmp_path).digest == digest
    path.unlink()
    assert load_foreign(tmp_path).digest == digest


def test_a_cache_of_other_images_than_the_known_ones_is_not_used(tmp_path):
    images = np.zeros((2, 784), np.float32)
    meta = {"format": 1, "source": "forged", "files": {}}
    meta["digest"] = datasets.digest({"train": images, "test": images})
    path = tmp_path / "mnist.npz"
    np.savez(path, meta=np.array(json.dumps(meta)), train=images, test=images)
    with pytest.raises(ValueError, match="digest does not fit"):
        datasets._read_cache(path, {})


def test_damaged_cache_without_originals_is_one_clear_error(tmp_path, monkeypatch):
    path = write_chardata(tmp_path)
    load_foreign(tmp_path)
    path.unlink()
    set_home(monkeypatch, "omniglot", "http://127.0.0.1:9/")
    damage_cache(tmp_path / ".cache/omniglot.npz", "truncated")
    with (
        pytest.warns(UserWarning, match=r"omniglot.npz is damaged"),
        pytest.raises(DataError, match=r"missing: chardata\.mat"),
    ):
        datasets.load("omniglot", tmp_path)


def test_read_only_data_dir_is_cached_for_the_user(tmp_path):
    folder = write_chardata(tmp_path / "data").parent
    folder.chmod(0o555)
    digest = load_foreign(folder).digest
    assert [path.name for path in folder.iterdir()] == ["chardata.mat"]
    (cache,) = (tmp_path / "user_cache/ais_jax").glob("*/omniglot.npz")
    written = cache.stat().st_mtime_ns
    assert load_foreign(folder).digest == digest
    assert cache.stat().st_mtime_ns == written
    folder.chmod(0o755)


def test_no_place_for_a_cache_is_only_a_warning(tmp_path, monkeypatch):
    folder = write_chardata(tmp_path / "data").parent
    folder.chmod(0o555)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="omniglot was not cached"):
        assert load_foreign(folder).train.shape == (7, 784)
    folder.chmod(0o755)


@pytest.mark.parametrize("value", [np.nan, 7.0, -0.1, 255.0, np.inf])
def test_pixels_outside_0_to_1_are_refused(value):
    images = np.zeros((3, 64), np.float32)
    images[1, 2] = value
    with pytest.raises(DataError, match=r"digits: test has pixels .* in \[0, 1\]"):
        datasets._dataset(
            "digits", {"train": np.zeros((3, 64), np.float32), "test": images}, "here"
        )


@pytest.mark.parametrize("shape", [(0, 64), (3, 63), (3,)])
def test_arrays_that_are_no_images_are_refused(shape):
    images = np.zeros(shape, np.float32)
    with pytest.raises(DataError, match="digits: test is float32"):
        datasets._dataset(
            "digits", {"train": np.ones((1, 64), "f4"), "test": images}, ""
        )
