"""Settings of the whole suite."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA remarks on everything that it loads

import jax
import matplotlib as mpl

mpl.use("agg")

# Compiling is most of the time: what one test or worker has compiled, the others need not.
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "xla"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
