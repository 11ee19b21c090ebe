"""Numbers with intervals from stored trajectories: phases, correlations, power laws.

Reads arrays alone; seeds are the replicates from which every interval comes.
"""

from ntkstats.analysis._correlation import correlation as correlation
from ntkstats.analysis._correlation import pooled_correlation as pooled_correlation
from ntkstats.analysis._intervals import Interval as Interval
from ntkstats.analysis._intervals import mean_interval as mean_interval
from ntkstats.analysis._phases import Phase as Phase
from ntkstats.analysis._phases import Phases as Phases
from ntkstats.analysis._phases import phases as phases
from ntkstats.analysis._power_law import PowerLaw as PowerLaw
from ntkstats.analysis._power_law import power_law as power_law

__all__ = [
    "Interval",
    "Phase",
    "Phases",
    "PowerLaw",
    "correlation",
    "mean_interval",
    "phases",
    "pooled_correlation",
    "power_law",
]
