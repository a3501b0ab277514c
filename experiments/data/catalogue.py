"""The data sets by name: their original files, homes, sizes and digests."""

from typing import NamedTuple

TFDS = "tfds:"  # what follows is a name of tensorflow-datasets
_TFDS = ("tensorflow_datasets", "array_record", "importlib_resources")


class Entry(NamedTuple):
    """One data set."""

    num_train: int  # training images
    num_test: int  # test images
    side: int  # height and width of an image, in pixels
    packages: tuple[str, ...]  # modules that preparing it needs
    files: dict[str, str]  # split, as TFDS calls it, to the name of its original file
    home: str = ""  # address of the folder that the originals are downloaded from
    # whether the pixels are 0 or 1 already (a fixed binarization)
    is_binary: bool = False
    levels: int = 1  # what 1 stands for in the original values, if anything
    digest: str = ""  # `load.digest` of its arrays, where there is one set of them

    @property
    def num_pixels(self):
        """Of an image."""
        return self.side**2


def _idx(home, digest=""):
    """MNIST, or one of its siblings, whose files have the same names and sizes."""
    files = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}
    sizes = 60000, 10000, 28
    return Entry(*sizes, _TFDS, files, home=home, levels=255, digest=digest)


CATALOGUE = {
    "digits": Entry(1500, 297, 8, packages=("sklearn",), files={}, levels=16),
    "mnist": _idx(
        "https://storage.googleapis.com/cvdf-datasets/mnist/", digest="e3781968adbb8dae"
    ),
    "fashion_mnist": _idx(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    ),
    "kmnist": _idx("http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
    "omniglot": Entry(
        *(24345, 8070, 28),
        packages=("scipy", "pooch"),
        files={"both": "chardata.mat"},
        home="https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/",
    ),
    "binarized_mnist": Entry(
        *(50000, 10000, 28),
        packages=_TFDS,
        files={
            "train": "binarized_mnist_train.amat",
            "validation": "binarized_mnist_valid.amat",
            "test": "binarized_mnist_test.amat",
        },
        home="http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
        digest="b6d8e40de74070cb",
        is_binary=True,
    ),
}
STUDY_SOURCE = "IWAE study's split"
STUDY_MD5 = "21ecaf34373511aa7691cf2e0802aa3d"  # its chardata.mat has it
# A rebuild of the study's file from the 105x105 originals, known by its arrays
# (`dataset.digest`): a .mat file's header holds a date, so its md5 is no identity.
REBUILT_DIGEST = "dfaa8628627647c6"
