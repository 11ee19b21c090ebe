"""Collectors inside loops that run on the device, and on checkpoints of runs that are over."""

from ntkstats.attach._optax import WatchingState as WatchingState
from ntkstats.attach._optax import as_optax as as_optax
from ntkstats.attach._scan import scan_checkpoints as scan_checkpoints
from ntkstats.attach._watch import Watch as Watch
from ntkstats.attach._watch import Watched as Watched
from ntkstats.attach._watch import watch as watch
