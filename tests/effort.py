"""How hard XLA tries: the programs of tests run for milliseconds and take seconds to compile.

Without optimisation and fusion they compile up to eight times as fast and give the same numbers up
to rounding. Tests that are about memory, speed, equality to the last bit or what XLA makes of a
program have the mark `optimised` and get what users get; so do those marked `slow` or `gpu`, all
with the option `--optimised`, and whatever runs on another device than the CPU.
"""

from __future__ import annotations

import jax
from jax._src import compiler

FASTEST = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""Options of the compiler of JAX 0.9 and 0.10; a later one may have no use for them."""


class Effort:
    """The compiler of JAX with a switch.

    JAX has no public one for all programs of a process that could be turned back: flags of XLA are
    read once, and options are given to one program.
    """

    def __init__(self) -> None:
        self.optimised = True
        self._options = compiler.get_compile_options
        self._known: dict[str, int] | None = None
        compiler.get_compile_options = self._with_effort

    def set(self, *, optimised: bool) -> None:
        """Compile like this from now on."""
        if optimised != self.optimised:
            self.optimised = optimised
            jax.clear_caches()

    def _with_effort(self, *args, **kwargs):
        options = self._options(*args, **kwargs)
        if not self.optimised and jax.default_backend() == "cpu":
            options.env_option_overrides = [*options.env_option_overrides, *self._fastest()]
        return options

    def _fastest(self) -> list[tuple[str, int]]:
        """Those of the options that this compiler knows."""
        if self._known is None:
            self._known = {}  # for the programs below
            self._known = {name: v for name, v in FASTEST.items() if _accepted({name: v})}
        return list(self._known.items())


def _accepted(options: dict[str, int]) -> bool:
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError:
        return False
    return True
