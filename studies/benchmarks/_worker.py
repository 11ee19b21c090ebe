"""One way to compute one kernel, in a process of its own that stays alive between runs.

``python -m studies.benchmarks._worker`` by the interpreter of the environment that holds what is
measured. Commands come as lines of JSON on stdin, an answer to each goes to stdout:

===========  ======================================================================================
``do``       what happens
===========  ======================================================================================
``load``     take a network: ``kind``, ``settings`` and the path of its ``arrays`` (npz)
``compile``  compile ``method`` and run it once; answers seconds, and facts about the method
``run``      compute the kernel ``calls`` times; answers seconds a call, result ready
``memory``   compute it once more; answers bytes: ``whole``, ``run`` (see `_peaks`), and what the
             ``program`` sets aside for temporaries and result
``save``     write the first kernel as (N C, N C) to ``path`` (npy)
===========  ======================================================================================

The first command names the ``package`` whose methods these are: ``"ntkstats"`` (those of
`ntkstats.kernels.plan`), ``"neural-tangents"`` (its numbers of implementations) or ``"parts"``
(pieces of a kernel's cost).

An old JAX must be able to run this file: nothing of ntkstats is imported before it is asked for.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from studies.benchmarks import _networks

Kernel = Callable[[], Any]

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_HIGH_WATER_MARK = "5"


class Loaded(NamedTuple):
    """A network's function and its arrays on the device."""

    apply: _networks.Apply
    params: Any
    constants: Any
    x: Any
    entry: str


Prepare = Callable[[Loaded, Any], tuple[Kernel, dict[str, Any]]]


class Worker:
    """What one process holds: a network, a compiled kernel, its memory before both."""

    def __init__(self, package: str) -> None:
        packages = {"ntkstats": _ntkstats, "neural-tangents": _neural_tangents, "parts": _parts}
        self._prepare = packages[package]()
        jax.block_until_ready(jnp.zeros(()) + 1)  # starts the backend
        self._baseline = _resident("VmRSS")
        self._loaded: Loaded | None = None
        self._kernel: Kernel | None = None
        self._first: Any = None
        self._program = 0

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do what one line of JSON asks for."""
        return getattr(self, f"_do_{command.pop('do')}")(**command)

    def _do_load(self, kind: str, settings: dict[str, Any], arrays: str) -> dict[str, Any]:
        parts: dict[str, Any] = {"params": {}, "constants": {}}
        with np.load(arrays) as held:
            for name in held.files:
                part, _, rest = name.partition(":")
                if part == "x":
                    parts["x"] = jnp.asarray(held[name])
                else:
                    parts[part][rest] = jnp.asarray(held[name])
        self._loaded = Loaded(
            _networks.function(kind, settings), entry=_networks.ENTRY[kind], **parts
        )
        return {"jax": jax.__version__}

    def _do_compile(self, method: Any) -> dict[str, Any]:
        start = time.perf_counter()
        assert self._loaded is not None
        self._kernel, facts = self._prepare(self._loaded, method)
        compiled = time.perf_counter()
        self._first = jax.block_until_ready(self._kernel())
        run = time.perf_counter() - compiled
        self._program = facts.get("reserved", 0)
        return {"compile": compiled - start, "first": run, **facts}

    def _do_run(self, calls: int = 1) -> dict[str, Any]:
        assert self._kernel is not None
        start = time.perf_counter()
        for _ in range(calls):
            jax.block_until_ready(self._kernel())
        return {"seconds": (time.perf_counter() - start) / calls}

    def _do_memory(self) -> dict[str, Any]:
        assert self._kernel is not None
        self._first = None
        return _peaks(self._kernel, self._baseline) | {"program": self._program}

    def _do_save(self, path: str) -> dict[str, Any]:
        kernel, self._first = np.asarray(self._first), None
        if kernel.ndim == 4:  # neural-tangents puts samples first: (N, N, C, C)
            n, _, c, _ = kernel.shape
            kernel = kernel.transpose(0, 2, 1, 3).reshape(n * c, n * c)
        np.save(path, kernel)
        return {"shape": list(kernel.shape)}


def _ntkstats() -> Prepare:
    """Ours: a plan, compiled."""
    import ntkstats as nts
    from ntkstats import kernels

    def prepare(loaded: Loaded, method: str) -> tuple[Kernel, dict[str, Any]]:
        model = nts.as_model(loaded.apply, has_state=True)
        params, state = model.split((loaded.params, loaded.constants))
        planned = kernels.plan(model, params, state, loaded.x, method=method)
        gram = jax.jit(lambda p, s, x: planned.gram(p, s, x).matrix)
        compiled = gram.lower(params, state, loaded.x).compile()
        facts = {"version": nts.__version__, "plan": str(planned), "reserved": _reserved(compiled)}
        return lambda: compiled(params, state, loaded.x), facts

    return prepare


def _neural_tangents() -> Prepare:
    """The peer: the full kernel, samples declared independent."""
    # Its experimental part alone needs TensorFlow (and is not used): an empty stand-in will do.
    name = "neural_tangents.experimental"
    vars(sys)["modules"].setdefault(name, types.ModuleType(name))
    import neural_tangents as nt

    def prepare(loaded: Loaded, method: int) -> tuple[Kernel, dict[str, Any]]:
        def apply(params: Any, x: Any) -> Any:
            return loaded.apply(params, loaded.constants, x)

        kernel = nt.empirical_ntk_fn(apply, trace_axes=(), vmap_axes=0, implementation=method)
        gram = jax.jit(lambda x, params: kernel(x, None, params))
        compiled = gram.lower(loaded.x, loaded.params).compile()
        version = f"{nt.__version__} (jax {jax.__version__})"
        facts = {"version": version, "reserved": _reserved(compiled)}
        return lambda: compiled(loaded.x, loaded.params), facts

    return prepare


def _parts() -> Prepare:
    """Pieces of what a kernel costs: ``backward``, ``eigenvalues``, ``gemm``, ``gemm-default``.

    ``backward`` carries the gradients of all outputs to the first layer and forms no gradient of
    a weight; ``gemm`` multiplies two large matrices in float32 (``gemm-default`` in what the
    device takes for it).
    """
    import ntkstats as nts

    def prepare(loaded: Loaded, method: str) -> tuple[Kernel, dict[str, Any]]:
        if method == "backward":
            return _carry_back(loaded), {}
        if method == "eigenvalues":
            shape = jax.eval_shape(loaded.apply, loaded.params, loaded.constants, loaded.x).shape
            a = jax.random.normal(jax.random.key(0), (shape[0] * shape[1],) * 2)
            compiled = jax.jit(nts.spectrum.eigenvalues)
            return partial(compiled, a @ a.T), {"n": len(a)}
        n = 2048 if jax.default_backend() == "cpu" else 8192
        precision = {"gemm": "highest", "gemm-default": "default"}[method]
        compiled = jax.jit(partial(jnp.matmul, precision=precision))
        a, b = jax.random.normal(jax.random.key(0), (2, n, n))
        return partial(compiled, a, b), {"flop": 2 * n**3}

    return prepare


def _carry_back(loaded: Loaded) -> Kernel:
    """Gradients of every output at the first layer, ``(N, C, ...)``, as the engine gets them."""
    import ntkstats as nts
    from ntkstats import kernels

    def apply(first: Any, held: Any, x: Any) -> Any:
        params, constants = held
        return loaded.apply({**params, **first}, constants, x)

    model = nts.as_model(apply, has_state=True)
    first = {loaded.entry: loaded.params[loaded.entry]}
    params, state = model.split((first, (loaded.params, loaded.constants)))
    planned = kernels.plan(model, params, state, loaded.x)
    [stream] = planned.streams or ()
    outputs = planned.task.n_rows
    cotangents = jnp.broadcast_to(jnp.eye(outputs), (len(loaded.x), outputs, outputs))

    def rows(params: Any, state: Any, x: Any) -> Any:
        factor: Any
        [factor] = stream.engine.tile(params, state, x, 0, cotangents)
        return factor.value

    return partial(jax.jit(rows), params, state, loaded.x)


def _reserved(compiled: Any) -> int:
    """Bytes that a compiled program sets aside for temporaries and result."""
    held = compiled.memory_analysis()
    return int(held.temp_size_in_bytes + held.output_size_in_bytes)


def _peaks(kernel: Kernel, baseline: int) -> dict[str, Any]:
    """Most memory above what the process held once everything was imported.

    On CPU resident memory: ``whole`` is the high-water mark of the whole life of the process
    (arrays, compilation and runs), ``run`` that of one more run, the mark put back and unused
    pages given back before it; parameters, inputs and compiled program count in both. On another
    device both are the allocator's peak.
    """
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        peak = int(stats["peak_bytes_in_use"])
        return {"whole": peak, "run": peak}
    whole = _resident("VmHWM") - baseline
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text(_RESET_HIGH_WATER_MARK)
    jax.block_until_ready(kernel())
    return {"whole": whole, "run": _resident("VmHWM") - baseline}


def _resident(name: str) -> int:
    """A line of the process's status, in bytes; 0 where there is none."""
    if not _STATUS.exists():
        return 0
    found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def main() -> None:
    """Answer until stdin ends."""
    # Whatever libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker: Worker | None = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if worker is None:
                worker = Worker(command.pop("package"))
            answer = worker.answer(command)
        except Exception as error:
            first = str(error).strip().splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {first[0][:300]}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
