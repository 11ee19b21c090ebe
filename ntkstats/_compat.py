"""The only file that looks at the installed JAX, and the only one that lends it anything.

Features are detected; versions are looked at for known defects only (`check_version`, which the
package calls on import).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import math
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, NoReturn

import jax
import jax.core
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jax.interpreters import ad

from ntkstats.errors import DependencyError

OLDEST = (0, 9)
"""The oldest JAX that is supported, as (major, minor)."""

DEFECTIVE = {"0.10.2": "it computes wrong numbers on CPU (jax issue 39103)"}
"""Releases that must not be used, and why."""

NEURAL_TANGENTS_INSTALL = (
    "pip install frozendict",
    "pip install --no-deps neural-tangents==0.6.5",
)
"""How to install neural-tangents without the dependencies it declares but does not need here."""

# --- is this JAX usable? ----------------------------------------------------------------------


def check_version(version: str = jax.__version__) -> None:
    """Refuse a JAX release that is too old or known to be wrong.

    Costs nothing; `check_jax` also computes.

    Parameters
    ----------
    version
        Version string to judge; the installed JAX by default.

    Raises
    ------
    DependencyError
        The release is older than `OLDEST` or listed in `DEFECTIVE`.
    """
    if version in DEFECTIVE:
        msg = (
            f"JAX {version} is installed, and {DEFECTIVE[version]}. ntkstats needs another release:"
            " pip install 'jax>=0.9,!=0.10.2'."
        )
        raise DependencyError(msg)
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
        msg = (
            f"JAX {version} is installed; ntkstats needs {OLDEST[0]}.{OLDEST[1]} or newer:"
            " pip install 'jax>=0.9,!=0.10.2'."
        )
        raise DependencyError(msg)


def canary() -> bool:
    """Whether this JAX gets a sum right that a defective release got wrong.

    Each row ``(i, 0, 0)`` is multiplied by the identity and its squares are summed, so the last
    value must be ``32768**2`` exactly.

    Returns
    -------
    bool
        True when the number is right.

    References
    ----------
    JAX issue 39103: JAX 0.10.2 gives 1065369600.
    """
    n = 32769
    rows = jnp.zeros((n, 3), jnp.float32).at[:, 0].set(jnp.arange(n, dtype=jnp.float32))
    identity = jnp.eye(3, dtype=jnp.float32)
    squares = jax.jit(jax.vmap(lambda row: jnp.sum((row @ identity) ** 2)))(rows)
    return float(squares[-1]) == 1073741824.0


@functools.cache
def check_jax() -> None:
    """Refuse a JAX that computes wrong numbers; runs `canary` once a process.

    Raises
    ------
    DependencyError
        The release is refused by `check_version`, or the canary came out wrong.
    """
    check_version()
    if not canary():
        msg = (
            f"JAX {jax.__version__} computed a wrong number in a check whose answer is known"
            " (see jax issue 39103); no result could be trusted. Install another release of jax"
            " and jaxlib."
        )
        raise DependencyError(msg)


# --- precision --------------------------------------------------------------------------------


def x64() -> contextlib.AbstractContextManager[Any]:
    """Context in which JAX computes in float64, whatever the global setting."""
    return jax.enable_x64(True)


def x64_enabled() -> bool:
    """Whether JAX computes in float64 here (global setting or an enclosing `x64`)."""
    return bool(jax.dtypes.canonicalize_dtype(np.float64) == np.float64)


# --- tracing ----------------------------------------------------------------------------------


def is_tracer(x: Any) -> bool:
    """Whether ``x`` stands for a value that is not known yet."""
    return isinstance(x, jax.core.Tracer)


def inside_trace() -> bool:
    """Whether a function is being traced here (by ``jit``, ``scan``, ``cond``, ...).

    ``vmap`` and ``grad`` alone do not count: under them new arrays are still concrete.
    """
    # A new array is a tracer exactly where JAX records operations instead of running them.
    return is_tracer(jnp.zeros(()))


def contains_convolution(fn: Callable[..., Any], *args: Any) -> bool:
    """Whether ``fn(*args)`` runs a convolution; arguments may be ``jax.ShapeDtypeStruct``.

    Traces without computing. Any failure counts as no: the answer is used to choose a faster
    path, never a different result.
    """
    try:
        traced = jax.make_jaxpr(fn)(*args)
    except Exception:
        return False
    return any(equation.primitive.name == "conv_general_dilated" for equation in _equations(traced))


def leaves_float64(fn: Callable[..., Any], *args: Any) -> bool:
    """Whether ``fn(*args)`` rounds a float64 to a narrower float anywhere, without computing."""

    def narrows(equation: Any) -> bool:
        if equation.primitive.name != "convert_element_type":
            return False
        new = equation.outvars[0].aval.dtype
        old = equation.invars[0].aval.dtype
        return old == np.float64 and jnp.issubdtype(new, jnp.floating) and new != np.float64

    return any(map(narrows, _equations(jax.make_jaxpr(fn)(*args))))


def pullback_bytes(fn: Callable[..., Any], params: Any, state: Any, x: Any) -> tuple[int, int]:
    """Bytes of activations that the pullback of one array ``fn(params, state, x)`` needs.

    Follows the program order of the traced functions and computes nothing; compilers usually find
    an order that needs less. The derivative is taken with respect to ``params``.

    Returns
    -------
    forward
        What depends on ``x`` and is kept for the pullback or needed on the way to it.
    backward
        What depends on the cotangent while it is pulled back, without the gradient itself.
    """

    def forward(params: Any, state: Any, x: Any) -> Any:
        return jax.vjp(lambda p: fn(p, state, x), params)

    traced, (out, pull) = jax.make_jaxpr(forward, return_shape=True)(params, state, x)
    inputs = traced.jaxpr.invars[-len(jax.tree.leaves(x)) :]
    back = jax.make_jaxpr(lambda pull, cotangent: pull(cotangent))(pull, out).jaxpr
    return sum(_live_bytes(traced.jaxpr, inputs)), _live_bytes(back, back.invars[-1:])[0]


def _live_bytes(jaxpr: Any, inputs: Iterable[Any]) -> tuple[int, int]:
    """Bytes that depend on the inputs: most alive at once apart from outputs, and of outputs."""
    last = {v: k for k, eqn in enumerate(jaxpr.eqns) for v in _variables(eqn.invars)}
    outputs = _variables(jaxpr.outvars) - set(jaxpr.invars)
    varying, alive, most = set(inputs), dict[Any, int](), 0
    for k, eqn in enumerate(jaxpr.eqns):
        if varying.isdisjoint(_variables(eqn.invars)):
            continue
        varying.update(eqn.outvars)
        alive.update({v: _bytes(v) for v in eqn.outvars if v not in outputs})
        inside = [_live_bytes(inner, inner.invars)[0] for inner in _jaxprs(eqn.params.values())]
        most = max(most, sum(alive.values()) + max(inside, default=0))
        alive = {v: size for v, size in alive.items() if last.get(v, -1) > k}
    return most, sum(map(_bytes, outputs & varying))


def _variables(atoms: Iterable[Any]) -> set[Any]:
    return {atom for atom in atoms if not hasattr(atom, "val")}  # literals hold their value


def _bytes(variable: Any) -> int:
    aval = variable.aval
    return int(aval.size * aval.dtype.itemsize) if hasattr(aval, "dtype") else 0


def _jaxprs(values: Iterable[Any]) -> Iterator[Any]:
    """Jaxprs among the values and in sequences of them."""
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _jaxprs(value)
        elif hasattr(inner := getattr(value, "jaxpr", value), "eqns"):
            yield inner


def _equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a jaxpr, also inside ``jit``, ``scan``, custom rules, ..."""
    for inner in _jaxprs([jaxpr]):
        for equation in inner.eqns:
            yield equation
            yield from _equations(list(equation.params.values()))


# --- optional packages ------------------------------------------------------------------------


def loaded(name: str) -> ModuleType | None:
    """Give the module called ``name`` if somebody imported it already, else None.

    A model of a framework cannot exist before its framework was imported, so nothing has to be
    imported to recognise one.
    """
    return sys.modules.get(name)


_neural_tangents_lock = threading.RLock()


def import_neural_tangents() -> ModuleType:
    """Import neural-tangents 0.6.5 on a JAX it was not written for.

    While its modules load, names that JAX has moved or dropped since are lent to JAX; afterwards
    JAX is exactly as before. TensorFlow is not needed. What works: infinite-width kernels of
    ``stax`` networks, and the empirical kernels by Jacobian contraction (implementation 1) and by
    NTK-vector products (implementation 2).

    Returns
    -------
    module
        ``neural_tangents``; from now on ``import neural_tangents`` works as well.

    Raises
    ------
    DependencyError
        neural-tangents or frozendict is missing, or the package cannot be imported on this JAX.
        Later, asking the package for structured derivatives (implementation 3) or AUTO
        (implementation 0) raises it too: they take JAX apart in ways it no longer allows.

    References
    ----------
    Novak et al. 2020, "Neural Tangents: fast and easy infinite neural networks in Python".
    """
    with _neural_tangents_lock:
        module = sys.modules.get("neural_tangents")
        if module is None:
            _require_installed("neural_tangents", "frozendict")
            module = _import_with_loans()
        _mend(sys.modules.get("neural_tangents._src.empirical"))
        return module


def _require_installed(*names: str) -> None:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        msg = (
            f"{' and '.join(missing)} not found; infinite-width kernels need neural-tangents"
            " 0.6.5 without the dependencies it declares. Run:\n  "
            + "\n  ".join(NEURAL_TANGENTS_INSTALL)
        )
        raise DependencyError(msg)


def _import_with_loans() -> ModuleType:
    before = set(sys.modules)
    try:
        with warnings.catch_warnings(), _lend(_neural_tangents_loans()):
            warnings.simplefilter("ignore")  # notices about its age are of no use to our callers
            module = importlib.import_module("neural_tangents")
    except Exception as error:
        for name in set(sys.modules) - before:
            if name.split(".")[0] == "neural_tangents":
                del sys.modules[name]
        msg = (
            f"neural-tangents cannot be imported on JAX {jax.__version__}"
            f" ({type(error).__name__}: {error}). Version 0.6.5 is expected, installed with:\n  "
            + "\n  ".join(NEURAL_TANGENTS_INSTALL)
            + "\nIf that is what is installed, this JAX is too new for it."
        )
        raise DependencyError(msg) from error
    # The empty stand-in lent below must not pass for the real thing.
    vars(module).pop("experimental", None)
    return module


def _neural_tangents_loans() -> list[tuple[dict[str, Any], str, Any]]:
    """``(namespace, name, value)`` of everything 0.6.5 looks up and a newer JAX may lack."""
    annotations = ("AbstractValue", "JaxprEqn", "ShapedArray", "Value", "Var")
    moved = ("Jaxpr", "Literal", "Primitive", *annotations)
    core = vars(jax.core)
    loans = [(core, name, getattr(jax.extend.core, name, _placeholder(name))) for name in moved]
    # The rule filed under this primitive is never looked up again: JAX no longer emits it.
    zeros_like = jax.extend.core.Primitive("zeros_like")
    loans.append((vars(ad), "zeros_like_p", zeros_like))
    if importlib.util.find_spec("jax.util") is None:
        util = ModuleType("jax.util")
        vars(util).update(safe_map=_safe_map, safe_zip=_safe_zip)
        loans.append((vars(sys)["modules"], "jax.util", util))
    # Its experimental part needs TensorFlow and nothing else needs its experimental part.
    experimental = ModuleType("neural_tangents.experimental")
    loans.append((vars(sys)["modules"], "neural_tangents.experimental", experimental))
    return loans


def _placeholder(name: str) -> type:
    """Stand in for a class that is only mentioned in annotations."""
    return type(name, (), {})


def _safe_map(fn: Callable[..., Any], *sequences: Iterable[Any]) -> list[Any]:
    return [fn(*items) for items in _safe_zip(*sequences)]


def _safe_zip(*sequences: Iterable[Any]) -> list[tuple[Any, ...]]:
    return list(zip(*sequences, strict=True))


@contextlib.contextmanager
def _lend(loans: Iterable[tuple[dict[str, Any], str, Any]]) -> Iterator[None]:
    """Add names that are missing to their namespaces and take them away again."""
    lent: list[tuple[dict[str, Any], str]] = []
    try:
        for namespace, name, value in loans:
            if name not in namespace:
                namespace[name] = value
                lent.append((namespace, name))
        yield
    finally:
        for namespace, name in lent:
            namespace.pop(name, None)


def _mend(empirical: ModuleType | None) -> None:
    """Give neural-tangents' own module one repaired helper and one clear message; idempotent."""
    if empirical is None:
        return
    # Its own version asks for the size of abstract arrays, which JAX is about to refuse.
    empirical._std_basis = _standard_basis  # type: ignore[attr-defined]
    table = getattr(empirical, "_implementation_to_ntk_fn", {})
    for implementation in list(table):
        if int(implementation) in (0, 3):
            table[implementation] = _structured_derivatives_refused


def _standard_basis(tree: Any) -> Any:
    """Identity matrix over all entries of ``tree``, each row shaped like ``tree``."""
    leaves, treedef = jax.tree.flatten(tree)
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    rows = jnp.eye(sum(sizes), dtype=jnp.result_type(*leaves))
    parts = jnp.split(rows, np.cumsum(sizes)[:-1], axis=1)
    shaped = [
        part.reshape(-1, *leaf.shape).astype(leaf.dtype)
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, shaped)


def _structured_derivatives_refused(*_args: Any, **_kwargs: Any) -> NoReturn:
    msg = (
        "neural-tangents was asked for structured derivatives (implementation=3) or AUTO"
        f" (implementation=0), which do not work on JAX {jax.__version__}. Pass implementation=1"
        " (Jacobian contraction) or implementation=2 (NTK-vector products), or use"
        " ntkstats.empirical_ntk."
    )
    raise DependencyError(msg)
