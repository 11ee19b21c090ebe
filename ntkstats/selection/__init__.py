"""Choose what to train on: selectors under one protocol, and what a chosen set is worth."""

from ntkstats.selection._at_init import InitScore as InitScore
from ntkstats.selection._at_init import score_at_init as score_at_init
from ntkstats.selection._clusters import ClusterStratified as ClusterStratified
from ntkstats.selection._clusters import Round as Round
from ntkstats.selection._clusters import Split as Split
from ntkstats.selection._clusters import ToleranceRun as ToleranceRun
from ntkstats.selection._clusters import stride_split as stride_split
from ntkstats.selection._clusters import until_tolerance as until_tolerance
from ntkstats.selection._columns import Columns as Columns
from ntkstats.selection._columns import dense as dense
from ntkstats.selection._columns import linear as linear
from ntkstats.selection._compare import Correlation as Correlation
from ntkstats.selection._compare import Paired as Paired
from ntkstats.selection._compare import compare as compare
from ntkstats.selection._compare import correlate as correlate
from ntkstats.selection._compare import paired_difference as paired_difference
from ntkstats.selection._composed import mean_kernel as mean_kernel
from ntkstats.selection._composed import normalised as normalised
from ntkstats.selection._composed import posterior as posterior
from ntkstats.selection._coverage import FacilityLocation as FacilityLocation
from ntkstats.selection._coverage import KernelHerding as KernelHerding
from ntkstats.selection._difficulty import EL2N as EL2N
from ntkstats.selection._difficulty import GradNorm as GradNorm
from ntkstats.selection._distances import LCMD as LCMD
from ntkstats.selection._distances import FarthestPoint as FarthestPoint
from ntkstats.selection._distances import KMeansPP as KMeansPP
from ntkstats.selection._entropy import MaxEntropy as MaxEntropy
from ntkstats.selection._entropy import MaxRenyi2 as MaxRenyi2
from ntkstats.selection._maxdet import MaxDet as MaxDet
from ntkstats.selection._mean_variance import MeanVariance as MeanVariance
from ntkstats.selection._medoids import KMedoids as KMedoids
from ntkstats.selection._ntk import ntk_columns as ntk_columns
from ntkstats.selection._ntk import ntk_features as ntk_features
from ntkstats.selection._random import MaxNorm as MaxNorm
from ntkstats.selection._random import Random as Random
from ntkstats.selection._random import Stratified as Stratified
from ntkstats.selection._rnd import RND as RND
from ntkstats.selection._rnd_limit import RNDLimit as RNDLimit
from ntkstats.selection._select import select as select
from ntkstats.selection._select import select_sharded as select_sharded
from ntkstats.selection._trained import TrainedScore as TrainedScore
from ntkstats.selection._trained import score_trained as score_trained
from ntkstats.selection._types import Greedy as Greedy
from ntkstats.selection._types import Pool as Pool
from ntkstats.selection._types import Problem as Problem
from ntkstats.selection._types import Selection as Selection
from ntkstats.selection._types import Selector as Selector
from ntkstats.selection._types import Whole as Whole
from ntkstats.selection._wrappers import ByBatch as ByBatch
from ntkstats.selection._wrappers import PerClass as PerClass

__all__ = [
    "EL2N",
    "LCMD",
    "RND",
    "ByBatch",
    "ClusterStratified",
    "Columns",
    "Correlation",
    "FacilityLocation",
    "FarthestPoint",
    "GradNorm",
    "Greedy",
    "InitScore",
    "KMeansPP",
    "KMedoids",
    "KernelHerding",
    "MaxDet",
    "MaxEntropy",
    "MaxNorm",
    "MaxRenyi2",
    "MeanVariance",
    "Paired",
    "PerClass",
    "Pool",
    "Problem",
    "RNDLimit",
    "Random",
    "Round",
    "Selection",
    "Selector",
    "Split",
    "Stratified",
    "ToleranceRun",
    "TrainedScore",
    "Whole",
    "compare",
    "correlate",
    "dense",
    "linear",
    "mean_kernel",
    "normalised",
    "ntk_columns",
    "ntk_features",
    "paired_difference",
    "posterior",
    "score_at_init",
    "score_trained",
    "select",
    "select_sharded",
    "stride_split",
    "until_tolerance",
]
