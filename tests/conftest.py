"""Settings of the whole suite."""

import os
import signal
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA remarks on everything that it loads

import jax
import matplotlib as mpl
import pytest

from tests.effort import Effort

mpl.use("agg")
# A shell that starts the suite in the background has its programs ignore Ctrl-C, and theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Compiling is most of the time: what one test or worker has compiled, the others need not.
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "xla"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

EFFORT = Effort()
MARKS = ("optimised", "slow", "gpu")


def pytest_addoption(parser):
    parser.addoption(
        "--optimised", action="store_true", help="compile all programs as users get them"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    EFFORT.set(
        optimised=item.config.getoption("optimised") or any(map(item.get_closest_marker, MARKS))
    )
