"""The inputs on which everything is measured."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from keyword import iskeyword
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from ntkstats._compat import is_tracer
from ntkstats.errors import ProbeError
from ntkstats.models._host import without_torch
from ntkstats.models._static import is_array
from ntkstats.typing import Array, ArrayLike, Inputs, PyTree


@dataclass(frozen=True, eq=False)
class Probe:
    """The fixed inputs, and targets where needed, on which a run is measured.

    Numbers taken on different samples, or on different numbers of samples, cannot be compared;
    hence one probe is fixed for a run and its content hash is stored with it. Probes compare by
    identity. Where the inputs themselves are what changes, see `from_extra`.

    Parameters
    ----------
    x
        Inputs: a pytree of NumPy or JAX arrays that share one leading sample axis (N, ...).
        Masks, token positions and the like ride in it. Torch tensors are copied to NumPy, here
        and in the other arguments.
    y
        Targets, a pytree of arrays (N, ...), for observables that need them.
    weight
        Weight of each sample (N,), real, not negative and not all zero. None weighs all equally.
    name
        An identifier; with several probes it becomes a suffix of the record fields.
    extra
        Set by `from_extra`: the inputs come with every record, and `x` and `y` are an example.

    Raises
    ------
    ProbeError
        If the inputs are empty, ragged, not finite or not concrete arrays, or if targets or
        weights do not fit them.

    Examples
    --------
    >>> import numpy as np
    >>> probe = Probe(np.ones((4, 3), np.float32), np.arange(4))
    >>> probe.n
    4
    >>> probe.hash == Probe(jnp.ones((4, 3)), np.arange(4), name="again").hash
    True
    """

    x: Inputs
    y: PyTree = None
    weight: ArrayLike | None = None
    name: str = "probe"
    extra: str | None = field(default=None, kw_only=True)
    _samples: int = field(init=False, repr=False, default=0)
    _digest: str | None = field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            msg = (
                f"the probe's name is {self.name!r}; expected an identifier, because it becomes "
                'a suffix of record fields. Use letters, digits and "_", e.g. name="on_policy".'
            )
            raise ProbeError(msg)
        for part in ("x", "y", "weight"):
            object.__setattr__(self, part, without_torch(getattr(self, part)))
        n = _sample_count(self.x)
        object.__setattr__(self, "_samples", n)
        _check_finite(self.x, "x")
        if self.y is not None:
            _check_targets(self.y, n)
        if self.weight is not None:
            _check_weight(self.weight, n)
        if self.extra is not None:
            _check_extra(self.extra)

    @property
    def n(self) -> int:
        """Number of samples N."""
        return self._samples

    @property
    def example(self) -> PyTree:
        """What the extra of a live probe looks like: `x`, or the pair ``(x, y)`` with targets."""
        return self.x if self.y is None else (self.x, self.y)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the content: names, dtypes, shapes and bytes of `x`, `y` and `weight`.

        The same in every process and for NumPy and JAX arrays of one dtype; the probe's name is
        not part of it. Of a live probe the name of the extra, dtypes and shapes count.
        """
        if self._digest is not None:
            return self._digest
        digest = hashlib.sha256(b"ntkstats probe 1")
        if self.extra is not None:
            digest.update(f"live|{self.extra}".encode())
        for part, tree in (("x", self.x), ("y", self.y), ("weight", self.weight)):
            for path, leaf in tree_flatten_with_path(tree)[0]:
                dtype, array = _plain_bytes(leaf)
                # Lengths in front of the variable parts keep different probes apart.
                head = f"{part}{keystr(path)}|{dtype}|{array.shape}"
                digest.update(len(head).to_bytes(8, "little") + head.encode())
                if self.extra is None:
                    digest.update(array.tobytes())
        return digest.hexdigest()

    @classmethod
    def from_extra(
        cls, extra: str, x: Inputs, y: PyTree = None, *, name: str = "on_policy"
    ) -> Probe:
        """A live probe: its inputs come with every record, as an extra of the loop.

        In reinforcement learning the data follow the policy. A fixed probe says how the network
        changes; a live one says what its kernel is on the states that it visits now. Numbers on
        a live probe change with the inputs as well, so collectors that compare records through
        time, such as `kernel_velocity`, refuse it, and the run says that the probe is live.

        Parameters
        ----------
        extra
            Name of the keyword under which the loop passes the inputs:
            ``recorder(step, state, obs=batch)``, ``watch.measure_if(watched, step, params,
            obs=batch)``. With targets it is the pair ``(inputs, targets)``. For an ensemble every
            array has a leading member axis.
        x, y
            An example, for shapes, dtypes and the checks that need numbers; every batch that
            follows is like it.
        name
            See `Probe`.

        Returns
        -------
        Probe
            A probe with `extra` set.

        Raises
        ------
        ProbeError
            If the example is no probe, or `extra` is no name that a loop can pass.

        Examples
        --------
        >>> import jax, jax.numpy as jnp, ntkstats as nts
        >>> model, w = nts.as_model(lambda w, x: x @ w), jnp.ones((3, 2))
        >>> live = nts.Probe.from_extra("obs", jnp.eye(3))
        >>> spectrum = nts.collectors.ntk_spectrum()
        >>> program = nts.collectors.bind(model, w, live, spectrum, extras={"obs": jnp.eye(3)})
        >>> snapshot = nts.collectors.Snapshot(0, *model.split(w), {"obs": 2 * jnp.eye(3)})
        >>> _, record = program.update(program.init(jax.random.key(0)), snapshot)
        >>> float(record["trace"])
        24.0
        """
        return cls(x, y, name=name, extra=extra)

    @classmethod
    def from_dataset(
        cls,
        key: Array,
        x: Inputs,
        y: PyTree = None,
        *,
        n: int,
        stratify: Literal[False, True] | ArrayLike = False,
        name: str = "probe",
    ) -> Probe:
        """Draw a probe from a data set, without replacement.

        Parameters
        ----------
        key
            PRNG key; one key always gives one probe.
        x, y
            Inputs and targets of the data set, pytrees of arrays (M, ...).
        n
            Number of samples to draw, at most M.
        stratify
            True keeps the proportions of the classes in `y` (M,) as exactly as whole numbers
            allow (largest remainders, ties to the smaller label); an array (M,) of labels does
            the same by these labels.
        name
            See `Probe`.

        Returns
        -------
        Probe
            The drawn samples in random order.

        Raises
        ------
        ProbeError
            If `n` is not between 1 and M, or there are no labels to stratify by.
        """
        x, y = without_torch(x), without_torch(y)
        size = _sample_count(x)
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= size:
            msg = (
                f"n={n!r} samples were asked for and the data set has {size}; expected an integer "
                f"from 1 to {size}. Samples are drawn without replacement."
            )
            raise ProbeError(msg)
        if y is not None:
            _check_targets(y, size, finite=False)
        order = np.asarray(jax.random.permutation(key, size))
        if stratify is False:
            chosen = order[:n]
        else:
            labels = _labels(y if stratify is True else stratify, size)
            chosen = _stratified(order, labels, int(n))
        return cls(_take(x, chosen), None if y is None else _take(y, chosen), name=name)


def describe_shapes(tree: PyTree) -> str:
    """Say shapes and dtypes of a pytree: ``"(64, 3) float32"``, ``"{mask: ..., tokens: ...}"``."""
    leaves = [
        (keystr(path, simple=True, separator="/"), f"{leaf.shape} {leaf.dtype}")
        for path, leaf in tree_flatten_with_path(tree)[0]
    ]
    if len(leaves) == 1 and not leaves[0][0]:
        return leaves[0][1]
    return "{" + ", ".join(f"{name}: {shape}" for name, shape in leaves) + "}"


def _named_leaves(tree: PyTree, root: str) -> list[tuple[str, Any]]:
    leaves, _ = tree_flatten_with_path(tree)
    return [(f"{root}{keystr(path)}", leaf) for path, leaf in leaves]


def _check_arrays(tree: PyTree, root: str) -> list[tuple[str, Any]]:
    """Refuse leaves that are not concrete numeric arrays with a leading axis."""
    leaves = _named_leaves(tree, root)
    if not leaves:
        msg = (
            f"{root} has no arrays (it is {tree!r}); expected arrays with a leading sample axis. "
            "Pass the inputs on which to measure."
        )
        raise ProbeError(msg)
    for name, leaf in leaves:
        if is_tracer(leaf):
            msg = (
                f"{name} is a tracer ({leaf.aval}); expected a concrete array, since a probe is "
                "checked and hashed on the host. Build the probe outside jit, vmap and scan."
            )
            raise ProbeError(msg)
        if not is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct):
            given = f"an array of dtype {leaf.dtype}" if hasattr(leaf, "dtype") else repr(leaf)
            msg = (
                f"{name} is {given}; expected a numeric NumPy or JAX array with a leading sample "
                "axis. Convert it with np.asarray; lists are read as pytrees."
            )
            raise ProbeError(msg)
        if np.ndim(leaf) == 0:
            msg = (
                f"{name} is a scalar; expected an array (N, ...). Give it a leading sample axis, "
                "or close over it in the model if it is the same for all samples."
            )
            raise ProbeError(msg)
    return leaves


def _sample_count(x: Inputs) -> int:
    leaves = _check_arrays(x, "x")
    sizes = {name: int(leaf.shape[0]) for name, leaf in leaves}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        msg = (
            f"the leading axes of the inputs differ: {listed}. Expected one number of samples for "
            "all leaves; transpose or repeat those that differ."
        )
        raise ProbeError(msg)
    n = leaves[0][1].shape[0]
    if n == 0:
        msg = "the inputs have 0 samples; expected at least 1. Check the slice that made them."
        raise ProbeError(msg)
    return int(n)


def _check_finite(tree: PyTree, root: str) -> None:
    for name, leaf in _named_leaves(tree, root):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        bad = ~np.isfinite(np.asarray(leaf))
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            msg = (
                f"{name} has {int(bad.sum())} entries that are not finite, the first at index "
                f"{first}; expected finite numbers. Drop or impute these samples."
            )
            raise ProbeError(msg)


# Positional arguments of the calls that take extras; a keyword cannot be called so.
_TAKEN = ("self", "step", "obj", "watched", "updates", "state", "params")


def _check_extra(extra: Any) -> None:
    named = isinstance(extra, str) and extra.isidentifier() and not iskeyword(extra)
    if not named or extra in _TAKEN:
        msg = (
            f"the extra is {extra!r}; expected the name of a keyword argument that the loop can "
            f"pass, other than {', '.join(_TAKEN)}. Use for example 'obs'."
        )
        raise ProbeError(msg)


def _check_targets(y: PyTree, n: int, *, finite: bool = True) -> None:
    for name, leaf in _check_arrays(y, "y"):
        if leaf.shape[0] != n:
            msg = (
                f"{name} has length {leaf.shape[0]} and x has {n} samples; expected one target "
                "for each sample. Pass targets in the order of x."
            )
            raise ProbeError(msg)
    if finite:
        _check_finite(y, "y")


def _check_weight(weight: Any, n: int) -> None:
    if is_tracer(weight) or not is_array(weight):
        msg = f"weight is {weight!r}; expected a concrete array ({n},) of numbers."
        raise ProbeError(msg)
    if weight.shape != (n,):
        msg = (
            f"weight has shape {weight.shape} and x has {n} samples; expected ({n},). Give one "
            "number for each sample."
        )
        raise ProbeError(msg)
    _check_real(weight)
    values = np.asarray(weight, dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        msg = (
            f"weight ranges from {values.min()} to {values.max()}; expected finite numbers, none "
            "negative and not all zero. Leave it out to weigh all samples equally."
        )
        raise ProbeError(msg)


def _check_real(weight: ArrayLike) -> None:
    real = jnp.issubdtype(weight.dtype, jnp.integer) or jnp.issubdtype(weight.dtype, jnp.floating)
    if not real and weight.dtype != bool:
        msg = f"weight has dtype {weight.dtype}; expected real numbers, one for each sample."
        raise ProbeError(msg)


def _labels(labels: Any, size: int) -> np.ndarray:
    if not is_array(labels) or np.shape(labels) != (size,):
        shape = f"shape {np.shape(labels)}" if is_array(labels) else f"type {type(labels).__name__}"
        msg = (
            f"the labels to stratify by have {shape}; expected one label for each of {size} "
            "samples. Give stratify=labels, e.g. y.argmax(-1) for one-hot targets."
        )
        raise ProbeError(msg)
    return np.asarray(labels)


def _stratified(order: np.ndarray, labels: np.ndarray, n: int) -> np.ndarray:
    """Keep of a random order the first samples of each class, by largest remainders."""
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # Whole-number arithmetic: n * count / size without rounding.
    quota, remainder = np.divmod(n * counts.astype(np.int64), labels.size)
    largest = np.argsort(-remainder, kind="stable")[: n - quota.sum()]
    quota[largest] += 1
    ranks = np.zeros(labels.size, dtype=np.int64)
    for label in range(counts.size):
        members = classes[order] == label
        ranks[members] = np.arange(members.sum())
    return order[ranks < quota[classes[order]]]


def _take(tree: PyTree, chosen: np.ndarray) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[chosen], tree)


def _plain_bytes(leaf: Any) -> tuple[str, np.ndarray]:
    """Return the dtype's name and a little-endian, contiguous array of the values."""
    dtype = str(leaf.dtype)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.ascontiguousarray(np.asarray(leaf))
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not np.little_endian):
        array = array.astype(array.dtype.newbyteorder("<"))
        dtype = str(array.dtype.newbyteorder("="))
    return dtype, array
