"""Kernels of several heads together are those of each head, and those between them."""

from __future__ import annotations

import numpy as np
import pytest

from ntkstats import kernels
from ntkstats.errors import HeadError, KernelError

from .networks import dense, system
from .oracle import error


def flat(name):
    J = dense(name)
    return J.reshape(-1, J.shape[-1])


def joint(**options):
    return kernels.joint_ntk(*system("actor").arguments, **options)


@pytest.mark.parametrize("method", ["structured", "reference"])
def test_blocks_are_the_kernels_of_the_heads(method):
    kernel = joint(method=method)
    assert {name for name, _ in kernel.heads} == {"actor", "critic"}
    for head in ("actor", "critic"):
        assert error(kernel.of(head), flat(head) @ flat(head).T) < 1e-5
    assert error(kernel.between("actor", "critic"), flat("actor") @ flat("critic").T) < 1e-5
    np.testing.assert_allclose(
        kernel.between("critic", "actor"), kernel.between("actor", "critic").T, rtol=1e-5
    )


def test_one_head_may_be_chosen():
    kernel = joint(heads=["critic"])
    assert kernel.joint.matrix.shape == kernel.of("critic").shape


def test_unknown_heads_and_options_are_named():
    with pytest.raises(HeadError, match="nosuch"):
        joint(heads=["nosuch"])
    with pytest.raises(HeadError, match="expected some of"):
        joint(heads=[])
    with pytest.raises(HeadError, match="expected one of"):
        joint(heads=["critic"]).of("actor")
    with pytest.raises(KernelError, match="outputs"):
        joint(outputs="trace")
