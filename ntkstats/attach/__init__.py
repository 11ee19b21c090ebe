"""Collectors inside loops that run on the device, and around loops that others own."""

from ntkstats.attach._calls import record_calls as record_calls
from ntkstats.attach._optax import WatchingState as WatchingState
from ntkstats.attach._optax import as_optax as as_optax
from ntkstats.attach._watch import Watch as Watch
from ntkstats.attach._watch import Watched as Watched
from ntkstats.attach._watch import watch as watch
