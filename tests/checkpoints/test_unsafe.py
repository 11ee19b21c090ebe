"""Nothing that is read is ever run."""

import pickle

import numpy as np
import pytest

import ntkstats as nts
from ntkstats import errors
from tests.checkpoints.trainings import flat_of, scan, trained


class Evil:
    """Unpickling it writes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin"])
def test_pickles_are_refused_unopened(suffix, tmp_path):
    mark = tmp_path / "mark"
    (tmp_path / "saved").mkdir()
    file = tmp_path / "saved" / f"model_100{suffix}"
    file.write_bytes(pickle.dumps(Evil(mark)))
    for checkpoints in (tmp_path / "saved", file, [file], {100: file}, iter([(100, file)])):
        with pytest.raises(errors.CheckpointError, match=r"runs code.*safetensors or \.npz"):
            scan(tmp_path, checkpoints)
    assert not mark.exists()


def test_objects_inside_of_npz_are_refused(folder, tmp_path):
    mark = tmp_path / "mark"
    _, states = trained("plain")
    np.savez(folder / "model_000004.npz", head=np.array([Evil(mark)], dtype=object))
    with pytest.warns(errors.RecordingWarning, match="would run code"):
        scan(tmp_path, folder, measure=nts.collectors.param_norm(), like=states[0])
    file = tmp_path / "run.scan.npz"
    np.savez(file, recorded=np.array([Evil(mark)], dtype=object))
    np.savez(folder / "model_000010.npz", **flat_of(states[8], "/"))
    scan(tmp_path, folder, measure=nts.collectors.param_norm(), like=states[0])
    assert not mark.exists()
