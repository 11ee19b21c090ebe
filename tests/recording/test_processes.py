"""A run of several processes is written by the first one."""

import os
import socket
import subprocess
import sys

import numpy as np

from ntkstats.recording import open_run
from tests.recording import process_child


def test_two_processes_measure_one_training_and_the_first_one_writes(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folders = [tmp_path / "first", tmp_path / "second"]
    children = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.recording.process_child"),
                *(str(rank), "2", str(port), str(folder / "run")),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": "",
            },
        )
        for rank, folder in enumerate(folders)
    ]
    try:
        said = [child.communicate(timeout=240) for child in children]
    finally:
        for child in children:
            child.kill()
    assert [out.splitlines()[-1].split() for out, _ in said] == [  # Gloo speaks before it
        ["0", "True", "5", "0", "finished", "0"],
        ["1", "False", "5", "0", "finished", "0"],
    ], said
    assert not folders[1].exists()
    ds = open_run(folders[0] / "run")
    assert ds.step.values.tolist() == [0, 3, 6, 9, 10]
    assert ds.attrs["device"]["processes"] == 2
    # The same training in this process alone.
    alone = process_child.train(
        tmp_path / "alone", process_child.X, process_child.Y, process_child.initial()
    )
    same = open_run(alone.path)
    for name in same.data_vars:
        np.testing.assert_allclose(ds[name], same[name], rtol=1e-3, atol=1e-4, err_msg=name)
