"""What the installed JAX can do, what is lent to it, and whether it computes right numbers."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkstats import _compat
from ntkstats.errors import DependencyError

ROOT = Path(__file__).parents[1]


def run_python(script: str) -> str:
    """Run a script in a fresh interpreter, warnings being errors, and give its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- is this JAX usable? ----------------------------------------------------------------------


def test_this_environment_computes_right_numbers():
    # Fails loudly on a JAX like 0.10.2, which gives 1065369600 (jax issue 39103).
    n = 32769
    rows = jnp.zeros((n, 3)).at[:, 0].set(jnp.arange(n))
    squares = jax.jit(jax.vmap(lambda r: jnp.sum((r @ jnp.eye(3)) ** 2)))(rows)
    assert int(squares[-1]) == 1073741824
    assert _compat.canary()


def test_a_jax_that_computes_wrong_numbers_is_refused(monkeypatch):
    monkeypatch.setattr(_compat._version, "canary", lambda: False)
    _compat.check_jax.cache_clear()
    with pytest.raises(DependencyError, match="wrong number"):
        _compat.check_jax()
    monkeypatch.undo()
    _compat.check_jax()


def test_check_jax_computes_once_a_process(monkeypatch):
    calls = []
    monkeypatch.setattr(_compat._version, "canary", lambda: calls.append(1) or True)
    _compat.check_jax.cache_clear()
    _compat.check_jax()
    _compat.check_jax()
    assert len(calls) == 1


@pytest.mark.parametrize(
    "version", ["0.9.0", "0.9.0.1", "0.10.0", "0.10.1", "0.10.3", "0.12.0.1", "1.0"]
)
def test_good_releases_are_accepted(version):
    _compat.check_version(version)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("0.10.2", r"wrong numbers on CPU \(jax issue 39103\)"),
        ("0.8.3", "needs 0.9 or newer"),
        ("0.4.25", "needs 0.9 or newer"),
    ],
)
def test_bad_releases_are_refused_with_a_reason_and_a_remedy(version, message):
    with pytest.raises(DependencyError, match=message) as caught:
        _compat.check_version(version)
    assert version in str(caught.value)
    assert "pip install" in str(caught.value)


def test_importing_the_library_on_the_defective_release_is_refused():
    run_python(
        """
        import jax
        jax.__version__ = "0.10.2"
        try:
            import ntkstats
        except ImportError as error:
            assert type(error).__name__ == "DependencyError", type(error)
            assert "0.10.2" in str(error)
        else:
            raise SystemExit("ntkstats imported on JAX 0.10.2")
        """
    )


# --- precision --------------------------------------------------------------------------------


def test_x64_computes_in_float64_and_restores_the_setting():
    before = _compat.x64_enabled()
    with _compat.x64():
        assert _compat.x64_enabled()
        assert (jnp.ones(1) / 3).dtype == jnp.float64
    assert _compat.x64_enabled() == before


def test_x64_restores_the_setting_after_an_error():
    before = _compat.x64_enabled()
    with pytest.raises(RuntimeError), _compat.x64():
        raise RuntimeError
    assert _compat.x64_enabled() == before


# --- tracing ----------------------------------------------------------------------------------


def test_tracers_are_told_from_arrays():
    seen = []
    jax.jit(lambda x: seen.append(_compat.is_tracer(x)))(1.0)
    jax.vmap(lambda x: seen.append(_compat.is_tracer(x)))(jnp.ones(2))
    assert seen == [True, True]
    assert not _compat.is_tracer(jnp.ones(2))
    assert not _compat.is_tracer(np.ones(2))
    assert not _compat.is_tracer("text")


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda see: see(0.0), False),
        (lambda see: jax.jit(see)(0.0), True),
        (lambda see: jax.lax.map(see, jnp.ones(2)), True),
        (lambda see: jax.lax.cond(True, see, see, 0.0), True),
        (lambda see: jax.make_jaxpr(see)(0.0), True),
        (lambda see: jax.vmap(see)(jnp.ones(2)), False),
        (lambda see: jax.grad(see)(0.0), False),
    ],
    ids=["eager", "jit", "map", "cond", "make_jaxpr", "vmap", "grad"],
)
def test_being_inside_a_trace_is_seen(run, expected):
    seen = []

    def see(x):
        seen.append(_compat.inside_trace())
        return x

    run(see)
    assert set(seen) == {expected}


def convolve(x):
    return jax.lax.conv_general_dilated(x, jnp.ones((2, 3, 3, 3)), (1, 1), "SAME")


IMAGES = jax.ShapeDtypeStruct((1, 3, 4, 4), jnp.float32)


@jax.custom_jvp
def with_custom_rule(x):
    return convolve(x)


with_custom_rule.defjvp(lambda primals, tangents: (convolve(*primals), convolve(*tangents)))


@pytest.mark.parametrize(
    "fn",
    [
        convolve,
        jax.jit(convolve),
        jax.checkpoint(convolve),
        with_custom_rule,
        lambda x: jax.vmap(convolve)(x[None]),
        lambda x: jax.lax.scan(lambda c, _: (c, convolve(c)), x, None, length=2),
        lambda x: jax.lax.cond(x.sum() > 0, convolve, lambda y: y[:, :2], x),
        lambda x: jax.lax.while_loop(lambda c: False, lambda c: c + convolve(c).sum(), x),
        jax.grad(lambda x: jax.jit(convolve)(x).sum()),
    ],
    ids=["plain", "jit", "remat", "custom_jvp", "vmap", "scan", "cond", "while", "grad"],
)
def test_convolutions_are_found_wherever_they_hide(fn):
    assert _compat.contains_convolution(fn, IMAGES)


def test_convolutions_are_found_behind_pytrees_of_concrete_arrays():
    assert _compat.contains_convolution(lambda t: convolve(t["x"]), {"x": jnp.ones(IMAGES.shape)})


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.tanh(x) @ x,
        jax.jit(lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=3)[0]),
        lambda x: 1 / 0,
        lambda x: x @ jnp.ones(7),
    ],
    ids=["matmul", "scan", "raises", "misfit"],
)
def test_anything_else_counts_as_no_convolution(fn):
    assert _compat.contains_convolution(fn, jnp.ones((4, 4))) is False


# --- optional packages ------------------------------------------------------------------------


def test_loaded_gives_modules_that_were_imported_and_imports_none(tmp_path, monkeypatch):
    assert _compat.loaded("jax") is jax
    assert _compat.loaded("this.is.not.a.module") is None
    (tmp_path / "nobody_imports_this.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert _compat.loaded("nobody_imports_this") is None
    assert "nobody_imports_this" not in sys.modules


def test_importing_neural_tangents_leaves_jax_as_it_was():
    run_python(
        """
        import sys, threading
        import jax, jax.core
        from jax.interpreters import ad
        # What it imports of JAX becomes an attribute of JAX, which is none of our doing.
        import jax.flatten_util, jax.example_libraries.stax, jax.extend.linear_util
        from ntkstats._compat import import_neural_tangents

        def names():
            return [dict(vars(space)) for space in (jax, jax.core, ad, jax.extend.core)]

        before, modules = names(), set(sys.modules)
        nt = import_neural_tangents()
        assert names() == before
        assert "jax.util" not in set(sys.modules) - modules
        assert "neural_tangents.experimental" not in sys.modules
        assert not hasattr(nt, "experimental")
        assert not any(name.startswith("tensorflow") for name in sys.modules)

        assert import_neural_tangents() is nt
        assert names() == before
        import neural_tangents
        from neural_tangents import stax
        assert neural_tangents is nt and nt.__version__ == "0.6.5"
        """
    )


def test_neural_tangents_can_be_imported_from_several_threads():
    run_python(
        """
        from concurrent.futures import ThreadPoolExecutor
        from ntkstats._compat import import_neural_tangents
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: import_neural_tangents(), range(8)))
        assert len(set(map(id, found))) == 1
        """
    )


@pytest.mark.parametrize("missing", ["neural_tangents", "frozendict"])
def test_a_missing_package_is_refused_with_the_lines_that_install_it(missing, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.delitem(sys.modules, "neural_tangents", raising=False)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else found(name)
    )
    with pytest.raises(DependencyError, match=f"{missing} not found") as caught:
        _compat.import_neural_tangents()
    assert "\n  pip install frozendict\n" in str(caught.value)
    assert "\n  pip install --no-deps neural-tangents==0.6.5" in str(caught.value)


def test_a_failing_import_is_explained_and_leaves_nothing_behind():
    run_python(
        """
        import sys
        import jax, jax.core
        from jax.interpreters import ad
        from ntkstats import _compat
        from ntkstats.errors import DependencyError

        jax_names = [set(vars(jax.core)), set(vars(ad))]
        loans = _compat._neural_tangents._neural_tangents_loans
        fewer = lambda: [loan for loan in loans() if loan[1] != "JaxprEqn"]
        _compat._neural_tangents._neural_tangents_loans = fewer
        try:
            _compat.import_neural_tangents()
        except DependencyError as error:
            assert "cannot be imported on JAX " + jax.__version__ in str(error)
            assert "JaxprEqn" in str(error)
        else:
            raise SystemExit("no error")
        assert not [name for name in sys.modules if name.startswith("neural_tangents")]
        assert [set(vars(jax.core)), set(vars(ad))] == jax_names

        _compat._neural_tangents._neural_tangents_loans = loans
        assert _compat.import_neural_tangents().__version__ == "0.6.5"
        """
    )


@pytest.mark.parametrize("implementation", [0, 3])
def test_structured_derivatives_of_neural_tangents_are_refused(implementation):
    nt = _compat.import_neural_tangents()
    for door in (nt.empirical_ntk_fn, nt.empirical_kernel_fn):
        with pytest.raises(DependencyError, match="implementation=1"):
            door(lambda params, x: x @ params, implementation=implementation)


def test_lent_helpers_refuse_sequences_of_different_lengths():
    assert _compat._neural_tangents._safe_map(lambda a, b: a + b, [1, 2], [3, 4]) == [4, 6]
    with pytest.raises(ValueError, match="shorter"):
        _compat._neural_tangents._safe_zip([1, 2], [3])
