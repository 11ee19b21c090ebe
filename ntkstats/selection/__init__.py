"""Choose what to train on: selectors under one protocol, and what a chosen set is worth."""

from ntkstats.selection._columns import Columns as Columns
from ntkstats.selection._columns import dense as dense
from ntkstats.selection._columns import linear as linear
from ntkstats.selection._columns import mean_kernel as mean_kernel
from ntkstats.selection._columns import normalised as normalised
from ntkstats.selection._columns import posterior as posterior
from ntkstats.selection._maxdet import MaxDet as MaxDet
from ntkstats.selection._random import MaxNorm as MaxNorm
from ntkstats.selection._random import Random as Random
from ntkstats.selection._random import Stratified as Stratified
from ntkstats.selection._rnd import RND as RND
from ntkstats.selection._select import select as select
from ntkstats.selection._select import select_sharded as select_sharded
from ntkstats.selection._types import Greedy as Greedy
from ntkstats.selection._types import Pool as Pool
from ntkstats.selection._types import Problem as Problem
from ntkstats.selection._types import Selection as Selection
from ntkstats.selection._types import Selector as Selector
from ntkstats.selection._types import Whole as Whole
