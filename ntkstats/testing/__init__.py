"""Checks of what users write themselves: run them in your own tests.

[`check_collector`][ntkstats.testing.check_collector] is what every collector of the library is
tested with.
"""

from ntkstats.testing._check import check_collector as check_collector

__all__ = ["check_collector"]
