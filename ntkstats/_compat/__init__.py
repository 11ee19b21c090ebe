"""The only room that looks at the installed JAX, at jaxprs, or lends JAX anything."""

from ntkstats._compat._graph import Equation as Equation
from ntkstats._compat._graph import Graph as Graph
from ntkstats._compat._graph import Literal as Literal
from ntkstats._compat._graph import Variable as Variable
from ntkstats._compat._graph import trace as trace
from ntkstats._compat._graph import traces_alike as traces_alike
from ntkstats._compat._neural_tangents import import_neural_tangents as import_neural_tangents
from ntkstats._compat._tracing import contains_convolution as contains_convolution
from ntkstats._compat._tracing import host_callbacks as host_callbacks
from ntkstats._compat._tracing import inside_trace as inside_trace
from ntkstats._compat._tracing import is_tracer as is_tracer
from ntkstats._compat._tracing import keeps_tracers as keeps_tracers
from ntkstats._compat._tracing import leaves_float64 as leaves_float64
from ntkstats._compat._tracing import pullback_bytes as pullback_bytes
from ntkstats._compat._tracing import side_effects as side_effects
from ntkstats._compat._tracing import x64 as x64
from ntkstats._compat._tracing import x64_enabled as x64_enabled
from ntkstats._compat._version import DEFECTIVE as DEFECTIVE
from ntkstats._compat._version import OLDEST as OLDEST
from ntkstats._compat._version import canary as canary
from ntkstats._compat._version import check_jax as check_jax
from ntkstats._compat._version import check_version as check_version
from ntkstats._compat._version import loaded as loaded
