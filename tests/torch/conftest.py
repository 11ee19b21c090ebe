"""Torch tests: one thread, no network, no progress bars."""

import os
from importlib.util import find_spec

import pytest

# Every file here needs torch; transformers and Lightning are asked for where they are used.
collect_ignore_glob = ["test_*.py"] if find_spec("torch") is None else []

for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):
    os.environ.setdefault(switch, "1")


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)
