"""Settings of the whole suite."""

import matplotlib as mpl

mpl.use("agg")
