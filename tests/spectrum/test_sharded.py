"""A kernel spread over devices by rows is multiplied where it lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

N = 400


@pytest.fixture(scope="module")
def report():
    flags = "--xla_force_host_platform_device_count=4"
    child = subprocess.run(
        [sys.executable, "-m", "tests.spectrum.sharded_child", str(N)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


@pytest.mark.parametrize("name", ["top", "entropy"])
def test_a_spread_kernel_gives_what_it_gives_in_one_piece(name, report):
    assert report["devices"] == 4
    values, bounds = zip(report[name]["spread"], report[name]["alone"], strict=True)
    np.testing.assert_allclose(*values, rtol=1e-4)
    np.testing.assert_allclose(*bounds, rtol=0.2)  # residuals near rounding differ


@pytest.mark.parametrize("name", ["top", "entropy"])
def test_only_blocks_of_vectors_travel_never_the_kernel(name, report):
    assert report[name]["collectives"] > 0  # so that the count can see any at all
    assert report[name]["largest"] < N * N // 4
