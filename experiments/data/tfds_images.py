"""Images by tensorflow-datasets, without TensorFlow.

TFDS (4.9.10) cannot prepare MNIST, its siblings and its fixed binarization so: a
subclass here reads the files, and keeps TFDS's download manager, checksums, version and
order. Others are read as array_record, or prepared where they need no TensorFlow.
"""

import contextlib
import gzip
import hashlib
import io
import tempfile
import zlib
from pathlib import Path

import numpy as np

from experiments.data.catalogue import CATALOGUE
from experiments.data.dataset import Dataset
from experiments.data.downloads import find
from experiments.system.errors import DataError
from experiments.system.progress import is_terminal


def build(name: str, root: Path) -> tuple[dict[str, np.ndarray], str]:
    """A data set's splits f32[N, 784] in [0, 1], and where it comes from, in a line.

    It is prepared in a temporary folder, what is not in `root` downloaded.
    """
    import tensorflow_datasets as tfds

    entry, base = CATALOGUE[name], tfds.builder_cls(name)
    known = {info.filename: info for info in base.url_infos.values()}
    with tempfile.TemporaryDirectory() as folder:
        for file, path in find(name, root).items():
            content = _verified(path, file, known[file])
            (Path(folder) / file).write_bytes(content)
        try:
            splits = _prepare(tfds, base, name, folder)
        except Exception as error:
            raise DataError(
                f"data set {name!r}: tensorflow-datasets could not prepare it: "
                f"{error}\n  Put {', '.join(entry.files.values())} (from "
                f"{entry.home}) into {root / name}, or try again."
            ) from error
    splits = {{"validation": "valid"}.get(s, s): x for s, x in splits.items()}
    source = f"files verified by tensorflow-datasets' {name} checksums, in its order"
    return splits, source


def load(name: str, root: Path) -> Dataset:
    """A data set of images that `root` holds as TFDS prepared it, or can prepare.

    Without a split `test` the training images are split (`Dataset.from_arrays`).
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=root, file_format="array_record")
        if not builder.data_path.exists():
            config = tfds.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(download_config=config)
        arrays = {
            {"validation": "valid"}.get(split, split): _images(builder, split)
            for split in ("train", "validation", "test")
            if split in builder.info.splits
        }
    except Exception as error:  # a builder may raise anything
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"dataset=tfds:{name}: tensorflow-datasets cannot read or prepare it in "
            f"{root} without TensorFlow ({type(error).__name__}: {reason}): prepare it "
            "there with file_format='array_record', or save its arrays as .npz"
        ) from error
    version = f"tensorflow-datasets' {builder.info.full_name}"
    return Dataset.from_arrays(**arrays, name=f"tfds:{name}", source=version)


def _images(builder, split):
    """Bytes [N, H, W, C] of a prepared split."""
    records = builder.as_data_source(split=split)
    return np.stack([r["image"] for r in records.__getitems__(range(len(records)))])


def _verified(path, file, info):
    """Bytes of a local original; refused unless TFDS's registered digest fits."""
    opener, content = open if path.name == file else gzip.open, b""
    with (
        contextlib.suppress(gzip.BadGzipFile, EOFError, zlib.error),
        opener(path, "rb") as original,
    ):
        content = original.read(int(info.size) + 1)  # a bomb would fill the memory
    got = hashlib.sha256(content).hexdigest()
    if (len(content), got) != (info.size, info.checksum):
        raise DataError(
            f"{path} is truncated or damaged: {len(content)} bytes were read, sha256 "
            f"{got}, where the original {file} has {int(info.size)} bytes, sha256 "
            f"{info.checksum}.\n  Replace it by a fresh copy, or delete it and it "
            "is downloaded where there is network."
        )
    return content


def _prepare(tfds, base, name, folder):
    """TFDS split name -> f32[N, 784] in TFDS's deterministic order."""
    builder = _images_only(tfds, base, name)(
        data_dir=folder, file_format="array_record"
    )
    config = tfds.download.DownloadConfig(manual_dir=folder, try_download_gcs=False)
    if not is_terminal():
        tfds.disable_progress_bar()
    # TFDS prints that it keeps what it prepares; here the folder is temporary.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=config)
    levels = np.float32(CATALOGUE[name].levels)
    return {s: _images(builder, s) / levels for s in CATALOGUE[name].files}


def _images_only(tfds, base, name):
    """TFDS's builder without labels, which reads the files without TensorFlow."""
    read = _read_amat if CATALOGUE[name].is_binary else _read_idx
    known = {info.filename: info for info in base.url_infos.values()}
    files, home = CATALOGUE[name].files, CATALOGUE[name].home

    class ImagesOnly(base, skip_registration=True):
        """Images as flat uint8 tensors; TFDS's version, checksums and splits."""

        def _info(self):
            image = tfds.features.Tensor(shape=(784,), dtype=np.uint8)
            features = tfds.features.FeaturesDict({"image": image})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            urls = {split: home + file for split, file in files.items()}
            paths = dl_manager.download(urls)
            return {s: self._generate_examples(p) for s, p in paths.items()}

        def _generate_examples(self, path):
            for index, image in enumerate(read(Path(path))):
                yield index, {"image": image}

    ImagesOnly.name = name
    ImagesOnly.url_infos = {home + file: known[file] for file in files.values()}
    return ImagesOnly


def _read_idx(path):
    content = gzip.decompress(path.read_bytes())
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 784)


def _read_amat(path):
    """Lines of 784 digits 0 or 1, each followed by one space or the newline."""
    text = np.frombuffer(path.read_bytes(), np.uint8)
    return text[::2].reshape(-1, 784) - ord("0")
