"""Data from one's own files and the caches of other libraries, written here in their formats."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image

from studies._errors import StudyError
from studies.datasets import Table, _caches, _formats, cifar10, load, local, mnist

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (9, 28, 28), np.uint8)
COLOUR = RNG.integers(0, 256, (15, 32, 32, 3), np.uint8)
LABELS = np.arange(15, dtype=np.uint8) % 10


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No cache of this machine takes part, nor the network."""
    for name in ("NTKSTATS_DATA", "KERAS_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    small = ((6, 28, 28), (3, 28, 28)), ((10, 32, 32, 3), (5, 32, 32, 3))
    for name, shapes in zip(("MNIST", "CIFAR10"), small, strict=True):
        archive = getattr(_caches, name)._replace(shapes=shapes, url="file:///nowhere/at.all")
        monkeypatch.setattr(f"studies.datasets._large.{name}", archive)


@pytest.fixture
def own(tmp_path, monkeypatch):
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setenv("NTKSTATS_DATA", str(folder))
    return folder


def save(path, x=GREY, y=LABELS[:9], n=6):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x_train=x[:n], y_train=y[:n], x_test=x[n:], y_test=y[n:])


def check_mnist(data):
    assert data.x_train.shape == (6, 28, 28, 1)
    pixels = (data.x_test[..., 0].astype(float) * data.std + data.mean) * 255
    np.testing.assert_allclose(pixels, GREY[6:], atol=1e-3)
    np.testing.assert_array_equal(data.y_test, LABELS[6:9])
    np.testing.assert_array_equal(np.sort(data.y_train), LABELS[:6])
    assert data.x_train.std(dtype=float) == pytest.approx(1, abs=1e-5)


def check_cifar(data):
    assert data.x_train.shape == (10, 32, 32, 3)
    pixels = (data.x_test.astype(float) * data.std + data.mean) * 255
    np.testing.assert_allclose(pixels, COLOUR[10:], atol=1e-3)
    np.testing.assert_array_equal(data.y_test, LABELS[10:])


# --- MNIST ------------------------------------------------------------------------------------


def test_mnist_from_a_file_of_ones_own(own):
    save(own / "mnist.npz")
    data = mnist()
    check_mnist(data)
    assert data.source.endswith("read from a file of yours")


def test_mnist_from_the_keras_cache(tmp_path):
    save(tmp_path / "home/.keras/datasets/mnist.npz")
    check_mnist(load("mnist"))


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_from_a_torchvision_folder(own, packed):
    folder = own / "MNIST/raw"
    folder.mkdir(parents=True)
    for name, array in (
        ("train-images-idx3", GREY[:6]),
        ("train-labels-idx1", LABELS[:6]),
        ("t10k-images-idx3", GREY[6:]),
        ("t10k-labels-idx1", LABELS[6:9]),
    ):
        header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
        raw = header + array.tobytes()
        if packed:
            (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(raw))
        else:
            (folder / f"{name}-ubyte").write_bytes(raw)
    check_mnist(mnist())


def test_mnist_from_the_hugging_face_cache(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    def png(image):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "png")
        return {"bytes": buffer.getvalue(), "path": None}

    folder = tmp_path / "hub/datasets--ylecun--mnist/snapshots/abc/mnist"
    folder.mkdir(parents=True)
    for split, part in (("train", slice(0, 6)), ("test", slice(6, 9))):
        columns = {"image": [png(i) for i in GREY[part]], "label": LABELS[:9][part].astype(int)}
        parquet.write_table(pyarrow.table(columns), folder / f"{split}-00000-of-00001.parquet")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    check_mnist(mnist())


# --- CIFAR-10 ---------------------------------------------------------------------------------


def batches(folder):
    folder.mkdir(parents=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    rows = [slice(2 * i, 2 * i + 2) for i in range(5)] + [slice(10, 15)]
    for name, part in zip(names, rows, strict=True):
        data = COLOUR[part].transpose(0, 3, 1, 2).reshape(-1, 3072)
        stored = {b"data": data, b"labels": LABELS[part].tolist()}
        (folder / name).write_bytes(pickle.dumps(stored, protocol=2))


def test_cifar10_from_the_keras_cache(tmp_path):
    batches(tmp_path / "home/.keras/datasets/cifar-10-batches-py")
    check_cifar(cifar10())


def test_cifar10_from_a_torchvision_folder(own):
    batches(own / "cifar-10-batches-py")
    check_cifar(cifar10())


def test_a_pickle_that_does_more_than_hold_arrays_is_refused(own):
    folder = own / "cifar-10-batches-py"
    batches(folder)

    class Evil:
        def __reduce__(self):
            return (print, ("loaded",))

    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(StudyError, match=r"data_batch_3 is no batch.*print is not allowed"):
        cifar10()


# --- downloads --------------------------------------------------------------------------------


def offered(monkeypatch, name, path, digest=None):
    from studies.datasets import _large

    right = hashlib.sha256(path.read_bytes()).hexdigest()
    archive = getattr(_large, name)._replace(url=path.as_uri(), sha256=digest or right)
    monkeypatch.setattr(f"studies.datasets._large.{name}", archive)


def test_what_is_asked_for_is_downloaded_once(tmp_path, own, monkeypatch):
    there = tmp_path / "far/mnist.npz"
    save(there)
    offered(monkeypatch, "MNIST", there)
    check_mnist(mnist(download=True))
    there.unlink()
    check_mnist(mnist())  # it is a file of one's own now


def test_cifar10_is_unpacked_from_what_was_downloaded(tmp_path, own, monkeypatch):
    batches(tmp_path / "far/cifar-10-batches-py")
    packed = tmp_path / "far/cifar-10-python.tar.gz"
    with tarfile.open(packed, "w:gz") as file:
        file.add(tmp_path / "far/cifar-10-batches-py", "cifar-10-batches-py")
    offered(monkeypatch, "CIFAR10", packed)
    check_cifar(cifar10(download=True))


def test_a_download_with_another_checksum_is_refused(tmp_path, own, monkeypatch):
    save(tmp_path / "far/mnist.npz")
    offered(monkeypatch, "MNIST", tmp_path / "far/mnist.npz", digest="0" * 64)
    with pytest.raises(StudyError, match="has not the checksum"):
        mnist(download=True)


def test_a_download_that_fails_leaves_nothing(own):
    with pytest.raises(StudyError, match="could not be fetched"):
        mnist(download=True)
    assert not list(own.iterdir())


def test_nothing_is_fetched_unasked_and_every_route_is_named(monkeypatch):
    monkeypatch.setattr("urllib.request.urlretrieve", None)
    with pytest.raises(StudyError) as caught:
        load("mnist")
    text = str(caught.value)
    for part in (
        "MNIST is not on this machine",
        "$NTKSTATS_DATA/mnist.npz",
        "$NTKSTATS_DATA/MNIST/raw",
        ".keras/datasets/mnist.npz",
        "datasets--ylecun--mnist",
        "download=True",
    ):
        assert part in text


def test_the_published_checksums_and_shapes():
    from studies.datasets._caches import CIFAR10, MNIST

    assert MNIST.shapes == ((60000, 28, 28), (10000, 28, 28))
    assert CIFAR10.shapes == ((50000, 32, 32, 3), (10000, 32, 32, 3))
    for archive in (MNIST, CIFAR10):
        assert archive.url.startswith("https://")
        assert len(archive.sha256) == 64


# --- one's own --------------------------------------------------------------------------------


def test_a_table_of_ones_own_is_found_by_name(own):
    x, y = RNG.normal(3, 2, (30, 4)), RNG.normal(size=30)
    save(own / "mine.npz", x, y, 20)
    data = load("mine")
    assert isinstance(data, Table)
    np.testing.assert_allclose(data.x_test * data.x_std + data.x_mean, x[20:], atol=1e-5)
    np.testing.assert_allclose(data.y_test[:, 0] * data.y_std + data.y_mean, y[20:], atol=1e-5)
    np.testing.assert_allclose(data.x_train.std(0), 1, atol=1e-5)
    assert "mine.npz (SHA-256 " in data.source


def test_classes_of_ones_own_stay_whole_numbers(own):
    save(own / "mine.npz", RNG.normal(size=(30, 4)), np.arange(30) % 3, 20)
    assert load("mine").y_train.dtype == np.int32


def test_the_seed_decides_the_order_of_the_training_rows(own):
    save(own / "mine.npz", np.arange(30.0)[:, None], np.arange(30.0), 20)
    one, two = local("mine", seed=1), local("mine", seed=2)
    assert not np.array_equal(one.x_train, two.x_train)
    np.testing.assert_array_equal(one.x_test, two.x_test)


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"x_train": GREY, "y_train": LABELS[:9]}, "lacks x_test, y_test"),
        ({"x": GREY[:3], "y": LABELS[:2]}, "with N targets"),
        ({"x": GREY[:0], "y": LABELS[:0]}, "with N targets"),
        ({"x": np.ones(4), "y": np.ones(4)}, "with N targets"),
        ({"x": np.full((4, 2), np.nan), "y": np.ones(4)}, "x_train holds what is no finite"),
        ({"x": np.full((4, 2), "a"), "y": np.ones(4)}, "x_train holds what is no finite"),
        ({"x": np.ones((4, 2)), "y": np.ones((4, 2))}, "one target a sample"),
    ],
)
def test_files_that_are_no_data_sets_are_refused(own, arrays, part):
    if "x" in arrays:
        x, y = arrays["x"], arrays["y"]
        arrays = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    np.savez(own / "bad.npz", **arrays)
    with pytest.raises(StudyError) as caught:
        load("bad")
    assert part in str(caught.value)


def test_a_pickle_in_a_file_of_ones_own_is_not_loaded(own):
    np.savez(own / "bad.npz", x_train=np.array([{}]), y_train=1, x_test=1, y_test=1)
    with pytest.raises(StudyError, match="not readable as npz"):
        load("bad")


@pytest.mark.parametrize("name", ["mine", "../mine", ""])
def test_an_unknown_name_lists_the_known_ones(own, name):
    with pytest.raises(StudyError, match=r"expected one of mnist5k, digits, .*NTKSTATS_DATA"):
        load(name)


def test_wrong_shapes_under_a_published_name_are_refused(own):
    save(own / "mnist.npz", GREY[:, :20])
    with pytest.raises(StudyError, match="Remove it"):
        mnist()


@pytest.mark.parametrize("raw", [b"", b"\0\0\x0d\1\0\0\0\1a", b"\0\0\x08\1\0\0\0\2a"])
def test_damaged_idx_files_are_refused(tmp_path, raw):
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(StudyError, match="no idx file"):
        _formats.idx(tmp_path / "x")
    with pytest.raises(StudyError, match="is missing"):
        _formats.idx(tmp_path / "y")
