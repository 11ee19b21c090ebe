"""Where arrays lie: an axis of a mesh, and what is put on its devices."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ntkstats.errors import KernelError
from ntkstats.typing import Array, Inputs, PyTree

T = TypeVar("T")


class Axis(NamedTuple):
    """The axis of a mesh over which a kernel is spread.

    Attributes
    ----------
    mesh
        All devices; what differs between those of other axes is nothing.
    name
        Name of the axis.
    """

    mesh: Mesh
    name: str

    @property
    def size(self) -> int:
        """Number of devices D along the axis."""
        return self.mesh.shape[self.name]

    @property
    def rows(self) -> NamedSharding:
        """Arrays cut along their leading axis."""
        return NamedSharding(self.mesh, PartitionSpec(self.name))

    @property
    def whole(self) -> NamedSharding:
        """Arrays that every device has."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def shared_with_others(self) -> bool:
        """Whether devices of other processes take part."""
        return self.mesh.is_multi_process

    @property
    def sharing_memory(self) -> int:
        """How many devices of this process share one memory: all of them on CPU."""
        return len(self.mesh.local_devices) if jax.default_backend() == "cpu" else 1

    def share(self, samples: int) -> int:
        """Number of samples of each device, the last ones filled up."""
        return -(-samples // self.size)


def axis_of(mesh: Any, name: str | None) -> Axis:
    """Check a mesh and the name of its axis.

    Raises
    ------
    KernelError
    """
    if not isinstance(mesh, Mesh):
        message = (
            f"mesh is a {type(mesh).__name__}; expected a jax.sharding.Mesh of devices. Make one "
            "with jax.make_mesh((len(jax.devices()),), ('rows',))."
        )
        raise KernelError(message)
    names = mesh.axis_names
    if name is None and len(names) != 1:
        message = (
            f"mesh has the axes {names}; expected one, or the name of the one to use. Pass "
            "mesh_axis=."
        )
        raise KernelError(message)
    if name is not None and name not in names:
        message = f"mesh_axis={name!r} was given and mesh has the axes {names}. Pass one of them."
        raise KernelError(message)
    if not any(d.process_index == jax.process_index() for d in mesh.devices.flat):
        message = (
            "mesh has no device of this process; expected at least one. Call from the processes "
            "that take part only."
        )
        raise KernelError(message)
    # The kernel is worked with as any other array: nobody should have to name shardings then.
    automatic = (AxisType.Auto,) * len(names)
    return Axis(Mesh(mesh.devices, names, axis_types=automatic), names[0] if name is None else name)


# --- what one process has ---------------------------------------------------------------------


def samples_here(x: Inputs) -> Inputs:
    """Samples that this process holds, for checks and plans: all of them unless others have some.

    Raises
    ------
    KernelError
    """
    return jax.tree.map(_samples_here, x)


def _samples_here(leaf: Any) -> Any:
    if not _on_mesh(leaf):
        return leaf
    if leaf.is_fully_replicated:
        return leaf.addressable_data(0)
    if leaf.is_fully_addressable:
        return np.asarray(leaf)
    pieces = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
    if any(piece.shape[1:] != leaf.shape[1:] for piece in pieces.values()):
        message = (
            f"inputs of shape {leaf.shape} are spread over processes by {leaf.sharding}; expected "
            "their leading axis only. Make them with jax.make_array_from_process_local_data and "
            "NamedSharding(mesh, PartitionSpec(axis))."
        )
        raise KernelError(message)
    return np.concatenate([np.asarray(pieces[start]) for start in sorted(pieces)])


def values_here(tree: PyTree) -> PyTree:
    """Parameters and state as arrays of one device.

    Raises
    ------
    KernelError
    """
    return jax.tree.map(_value_here, tree)


def _value_here(leaf: Any) -> Any:
    if not _on_mesh(leaf):
        return leaf
    if leaf.is_fully_replicated:
        return leaf.addressable_data(0)
    if leaf.is_fully_addressable:
        return jnp.asarray(np.asarray(leaf))
    message = (
        f"a parameter of shape {leaf.shape} is spread over processes by {leaf.sharding}; expected "
        "all of it on every device. Replicate it first: "
        "jax.jit(lambda p: p, out_shardings=NamedSharding(mesh, PartitionSpec()))."
    )
    raise KernelError(message)


def _on_mesh(leaf: Any) -> bool:
    if not isinstance(leaf, jax.Array):
        return False
    # Even on one device its type may name an axis, and such arrays do not mix with others.
    return isinstance(leaf.sharding, NamedSharding) or len(leaf.sharding.device_set) > 1


# --- what is put on the devices ---------------------------------------------------------------


def on_every_device(axis: Axis, tree: PyTree) -> PyTree:
    """All leaves on all devices."""
    return jax.tree.map(lambda leaf: _placed(leaf, axis, axis.whole), tree)


def by_samples(axis: Axis, x: Inputs) -> Inputs:
    """All leaves cut along the samples; the last sample is repeated to fill the last devices up.

    Raises
    ------
    KernelError
    """

    def spread(leaf: Any) -> Array:
        n = leaf.shape[0]
        total = axis.size * axis.share(n)
        if total == n:
            return _placed(leaf, axis, axis.rows)
        if not getattr(leaf, "is_fully_addressable", True):
            message = (
                f"{n} samples are spread over processes, and the axis {axis.name!r} of mesh has "
                f"{axis.size} devices; expected a multiple. Leave some samples out, or give every "
                "process all of them."
            )
            raise KernelError(message)
        index = np.minimum(np.arange(total), n - 1)
        return _placed(_samples_here(leaf)[index], axis, axis.rows)

    return jax.tree.map(spread, x)


def _placed(leaf: Any, axis: Axis, sharding: NamedSharding) -> Array:
    if not axis.shared_with_others or not getattr(leaf, "is_fully_addressable", True):
        return jax.device_put(leaf, sharding)
    if _on_mesh(leaf):
        leaf = np.asarray(leaf)
    # Every process has all of it and gives its own devices their part.
    value = leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


# --- what processes have in common ------------------------------------------------------------


def agreed(axis: Axis, decide: Callable[[], T], describe: Callable[[T], object]) -> T:
    """``decide()``, or an error in all processes if it failed or came out differently in one.

    Processes that run different programs would wait for each other for ever.

    Parameters
    ----------
    axis
        Where the processes meet.
    decide
        What each of them does by itself.
    describe
        What has to be the same in all; its ``repr`` is compared.

    Raises
    ------
    KernelError
        Another process failed, or decided otherwise.
    NtkStatsError
        What ``decide`` raised here.
    """
    if not axis.shared_with_others:
        return decide()
    failure, code = None, -1
    try:
        decision = decide()
        code = zlib.crc32(repr(describe(decision)).encode()) & 0x7FFFFFFF
    except Exception as error:  # whatever it is, the others have to know
        failure = error
    codes = _from_all(axis, code)
    if failure is not None:
        raise failure
    if (codes < 0).any():
        message = (
            "Another process refused these arguments; its message says why. Every process has to "
            "make the same call."
        )
        raise KernelError(message)
    if (codes != code).any():
        message = (
            "The processes planned this kernel differently; expected the same plan in all. Pass "
            "the same arguments everywhere, and budget_bytes= if their machines differ in memory."
        )
        raise KernelError(message)
    return decision


def _from_all(axis: Axis, code: int) -> np.ndarray:
    """One number of every device's process."""
    mesh = Mesh(axis.mesh.devices.ravel(), ("all",), axis_types=(AxisType.Auto,))
    spread, whole = (NamedSharding(mesh, PartitionSpec(*name)) for name in (("all",), ()))
    own = np.full(1, code, np.int32)
    codes = jax.make_array_from_callback((mesh.size,), spread, lambda _: own)
    gathered = jax.jit(lambda codes: codes, out_shardings=whole)(codes)
    return np.asarray(gathered.addressable_data(0))
