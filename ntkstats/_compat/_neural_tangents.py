"""neural-tangents 0.6.5 on a JAX it was not written for."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
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

NEURAL_TANGENTS_INSTALL = (
    "pip install frozendict",
    "pip install --no-deps neural-tangents==0.6.5",
)
"""How to install neural-tangents without the dependencies it declares but does not need here."""

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
