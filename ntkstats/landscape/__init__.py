"""Loss landscapes: minima, transition states, pathways and the networks they form."""

from ntkstats.landscape._bands import Band as Band
from ntkstats.landscape._curvature import Density as Density
from ntkstats.landscape._curvature import HessianOperator as HessianOperator
from ntkstats.landscape._curvature import hessian_density as hessian_density
from ntkstats.landscape._curvature import sharpness as sharpness
from ntkstats.landscape._flow import Flow as Flow
from ntkstats.landscape._flow import Path as Path
from ntkstats.landscape._follow import Follow as Follow
from ntkstats.landscape._from_model import flatten as flatten
from ntkstats.landscape._from_model import ntk_observer as ntk_observer
from ntkstats.landscape._from_model import problem_from_model as problem_from_model
from ntkstats.landscape._kinetics import Passage as Passage
from ntkstats.landscape._kinetics import passage as passage
from ntkstats.landscape._kinetics import rate_matrix as rate_matrix
from ntkstats.landscape._landscape import Landscape as Landscape
from ntkstats.landscape._matching import Aligned as Aligned
from ntkstats.landscape._matching import align as align
from ntkstats.landscape._matching import orbit_size as orbit_size
from ntkstats.landscape._missing import missing_pairs as missing_pairs
from ntkstats.landscape._network import Network as Network
from ntkstats.landscape._network import Nodes as Nodes
from ntkstats.landscape._network import network_from_arrays as network_from_arrays
from ntkstats.landscape._pathsample import read_pathsample as read_pathsample
from ntkstats.landscape._pathsample import write_pathsample as write_pathsample
from ntkstats.landscape._points import Point as Point
from ntkstats.landscape._problem import Problem as Problem
from ntkstats.landscape._quench import Quench as Quench
from ntkstats.landscape._report import Report as Report
from ntkstats.landscape._store import StoredPath as StoredPath
from ntkstats.landscape._surfaces import lennard_jones as lennard_jones
from ntkstats.landscape._surfaces import mueller_brown as mueller_brown
from ntkstats.landscape._surfaces import six_hump_camel as six_hump_camel
from ntkstats.landscape._surfaces import xor_network as xor_network
from ntkstats.landscape._symmetry import Symmetry as Symmetry
from ntkstats.landscape._symmetry import Units as Units
from ntkstats.landscape._symmetry import hidden_units as hidden_units
from ntkstats.landscape._thermodynamics import Thermodynamics as Thermodynamics
from ntkstats.landscape._thermodynamics import heat_capacity as heat_capacity
from ntkstats.landscape._trained import Plane as Plane
from ntkstats.landscape._trained import Profile as Profile
from ntkstats.landscape._trained import linear_barrier as linear_barrier
from ntkstats.landscape._trained import loss_plane as loss_plane
from ntkstats.landscape._trained import mode_connection as mode_connection
from ntkstats.landscape._tree import Tree as Tree
from ntkstats.landscape._tree import barrier_heights as barrier_heights
from ntkstats.landscape._tree import disconnectivity as disconnectivity
from ntkstats.landscape._verdict import Verdict as Verdict

__all__ = [
    "Aligned",
    "Band",
    "Density",
    "Flow",
    "Follow",
    "HessianOperator",
    "Landscape",
    "Network",
    "Nodes",
    "Passage",
    "Path",
    "Plane",
    "Point",
    "Problem",
    "Profile",
    "Quench",
    "Report",
    "StoredPath",
    "Symmetry",
    "Thermodynamics",
    "Tree",
    "Units",
    "Verdict",
    "align",
    "barrier_heights",
    "disconnectivity",
    "flatten",
    "heat_capacity",
    "hessian_density",
    "hidden_units",
    "lennard_jones",
    "linear_barrier",
    "loss_plane",
    "missing_pairs",
    "mode_connection",
    "mueller_brown",
    "network_from_arrays",
    "ntk_observer",
    "orbit_size",
    "passage",
    "problem_from_model",
    "rate_matrix",
    "read_pathsample",
    "sharpness",
    "six_hump_camel",
    "write_pathsample",
    "xor_network",
]
