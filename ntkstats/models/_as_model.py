"""Whatever the user holds becomes a `Model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ntkstats._compat import loaded
from ntkstats.errors import ModelError
from ntkstats.models._adapter import Adapter, build_model
from ntkstats.models._filter import ParamsFilter
from ntkstats.models._heads import Heads
from ntkstats.models._model import Model
from ntkstats.models._plain import plain_adapter
from ntkstats.models._stax import is_stax_triple, stax_adapter
from ntkstats.typing import Array

_KNOWN = (
    "a flax linen module or its apply, a flax nnx module, an Equinox module, a torch module, a "
    "neural-tangents triple (init_fn, apply_fn, kernel_fn), or a function f(params, x)"
)


def as_model(
    obj: Any,
    *,
    heads: Heads = None,
    params_filter: ParamsFilter = None,
    coupled: bool = False,
    per_sample: bool | None = None,
    has_state: bool = False,
    call_kwargs: Mapping[str, Any] | None = None,
    split: Callable[[Any], Any] | None = None,
    key: Array | None = None,
    name: str | None = None,
) -> Model:
    r"""Adapt a network to the two pure functions that everything else works on.

    The model always runs in evaluation mode and never writes to what the user holds:

    ============  ====================================  ===========================================
    given         ``model.split`` accepts               evaluation mode
    ============  ====================================  ===========================================
    linen module  TrainState (with or without           ``train``, ``training``, ``is_training``
    or its        ``batch_stats``), variables dict,     False; ``deterministic``,
    ``apply``     bare parameters                       ``use_running_average`` True, where the
                                                        signature (or a field) has them
    nnx module    the module, an object with            a view with ``deterministic`` and
                  ``.model``, a tuple with one module   ``use_running_average`` True, and the
                                                        keywords above
    Equinox       the module, ``(module, State)``, a    ``eqx.nn.inference_mode``
    module        tuple with one module
    torch module  the module, an object with            ``training`` False in every submodule, put
                  ``.model``, a tuple with one module   back afterwards
    stax triple   the parameters                        as the network was built
    function      the parameters, or an object with     the function's own affair
                  ``.params``
    ============  ====================================  ===========================================

    What was switched is said in ``Model.description``. Equinox modules are functions of one
    sample, all others of a batch.

    Parameters
    ----------
    obj
        The network: one of the above, or a train state whose ``apply_fn`` is one of them. A
        `Model` is returned as it is.
    heads
        Names for the outputs. None: an array is ``"output"``, a dict or namedtuple names its
        entries. ``("actor", "critic")`` names the entries of a tuple or selects those of a dict.
        ``{"actor": lambda out: out[0].logits}`` picks arrays from any output; the functions see
        what the network itself returns, that is one sample's output for a per-sample network.
        For torch modules they may take the inputs as a second argument.
    params_filter
        Which parameters are differentiated: a glob or a list of globs on slash-joined names
        (``"*/lora_*"``; ``*`` also matches ``/``), or a predicate ``(path, leaf) -> bool``. The
        others travel in the state. Integer and boolean leaves always do.
    coupled
        Declare that samples interact (one graph, contrastive heads). The kernel is then taken on
        the whole probe at once.
    per_sample
        True if the network takes one sample: it is lifted by `jax.vmap`. None means True for
        Equinox modules and False for all others.
    has_state
        For plain functions: ``f(params, state, x)`` instead of ``f(params, x)``; `split` then
        takes a pair ``(params, state)`` or an object with ``.params`` and ``.model_state`` or
        ``.batch_stats``.
    call_kwargs
        Extra keywords of every call. For modules, ``"method"`` is the name of a method, or a
        function ``(module, x, ...)``, to call instead of ``__call__``.
    split
        Function from the object the training loop holds to what the table's second column
        lists. With it, any object can be recorded.
    key
        Leave dropout on. One mask is drawn from the key and shared by all samples, so that the
        kernel is that of one thinned network; batch statistics stay those of evaluation mode.
        For linen, nnx and Equinox modules.
    name
        What the model is called in records; by default the class or function name.

    Returns
    -------
    Model
        ``split(obj) -> (params, state)`` and ``apply(params, state, x) -> {head: (N, *out)}``.
        Adapt once and keep it: the functions are compiled for each `Model` object.

    Raises
    ------
    ModelError
        If no adapter knows the object or the options contradict each other.
    ParamsError
        If the filter is not understood (when built), or keeps nothing or a complex parameter
        (when split).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> model = as_model(lambda params, x: x @ params["w"])
    >>> params, state = model.split({"w": jnp.ones((3, 2))})
    >>> model.apply(params, state, jnp.ones((5, 3)))["output"].shape
    (5, 2)
    """
    kwargs = {} if call_kwargs is None else call_kwargs
    _check_options(kwargs, split, key, name)
    if isinstance(obj, Model):
        options = (heads, params_filter, per_sample, call_kwargs, split, key, name)
        if coupled or has_state or any(option is not None for option in options):
            msg = (
                f"the Model {obj.name!r} was given together with other options; expected the "
                "network itself. Give the options where the model is first built."
            )
            raise ModelError(msg)
        return obj
    module = _torch_module(obj)
    if module is not None:
        return _torch_model(
            module,
            kwargs,
            {"per_sample": per_sample, "has_state": has_state, "key": key},
            heads=heads,
            params_filter=params_filter,
            coupled=coupled,
            split=split,
            name=name,
        )
    return build_model(
        _adapter_for(obj, dict(kwargs), has_state=has_state, key=key),
        heads=heads,
        params_filter=params_filter,
        coupled=coupled,
        per_sample=per_sample,
        split=split,
        name=name,
    )


def _adapter_for(
    obj: Any, kwargs: Mapping[str, Any], *, has_state: bool, key: Array | None
) -> Adapter:
    """Choose the adapter; a framework is imported only if the program already did."""
    network = _train_state_apply(obj)
    framework = _framework_adapter(network, kwargs, key)
    if framework is not None:
        if has_state:
            msg = (
                f"has_state=True was given with a {type(network).__name__}; it is for plain "
                "functions f(params, state, x). Drop it: the module's state is found by itself."
            )
            raise ModelError(msg)
        return framework
    if key is not None:
        msg = (
            f"key= was given with a {type(network).__name__}; expected a flax or Equinox module. "
            "Bind the key in the function itself, e.g. functools.partial(f, rng=key)."
        )
        raise ModelError(msg)
    if is_stax_triple(network) and not has_state:
        return stax_adapter(network, kwargs)
    if callable(network):
        return plain_adapter(network, kwargs, has_state=has_state)
    msg = (
        f"as_model was given a {type(obj).__name__}; expected {_KNOWN}. Wrap it in such a function."
    )
    raise ModelError(msg)


def _framework_adapter(
    network: Any, kwargs: Mapping[str, Any], key: Array | None
) -> Adapter | None:
    if loaded("flax.nnx"):
        from ntkstats.models import _nnx

        nnx_module = _nnx.nnx_module_of(network)
        if nnx_module is not None:
            return _nnx.nnx_adapter(nnx_module, kwargs, key)
    if loaded("flax.linen"):
        from ntkstats.models import _linen

        linen_module = _linen.linen_module_of(network)
        if linen_module is not None:
            return _linen.linen_adapter(linen_module, kwargs, key)
    if loaded("equinox"):
        from ntkstats.models import _equinox

        pair = _equinox.equinox_pair_of(network)
        if pair is not None:
            return _equinox.equinox_adapter(pair[0], kwargs, key)
    return None


def _train_state_apply(obj: Any) -> Any:
    """Return the `apply_fn` of a train state, anything else unchanged."""
    if hasattr(obj, "params") and callable(getattr(obj, "apply_fn", None)):
        return obj.apply_fn
    return obj


def _torch_model(
    module: Any, kwargs: Mapping[str, Any], refused: Mapping[str, Any], **options: Any
) -> Model:
    from ntkstats.models import _torch

    given = [name for name, value in refused.items() if value is not None and value is not False]
    if given or "method" in kwargs:
        what = f"{given[0]}=" if given else 'call_kwargs={"method": ...}'
        msg = (
            f"{what} was given with a torch module; expected a module whose forward takes a batch "
            "and is measured in evaluation mode, with its own buffers. Drop it; wrap the module in "
            "another one if it has to be called in another way."
        )
        raise ModelError(msg)
    return _torch.torch_model(module, kwargs, **options)


def _torch_module(obj: Any) -> Any:
    """The torch module that was given, or None."""
    torch = loaded("torch")
    return obj if torch is not None and isinstance(obj, torch.nn.Module) else None


def _check_options(kwargs: Any, split: Any, key: Any, name: Any) -> None:
    if not isinstance(kwargs, Mapping) or not all(isinstance(k, str) for k in kwargs):
        msg = (
            f"call_kwargs={kwargs!r} was given; expected a mapping from keyword names to values, "
            'e.g. {"train": False}.'
        )
        raise ModelError(msg)
    if split is not None and not callable(split):
        msg = f"split={split!r} was given; expected a function of the object your loop holds."
        raise ModelError(msg)
    if name is not None and not isinstance(name, str):
        msg = f"name={name!r} was given; expected a string."
        raise ModelError(msg)
    if key is not None and not _is_key(key):
        msg = (
            f"key={key!r} was given; expected one PRNG key such as jax.random.key(0). A batch of "
            "keys would draw several masks."
        )
        raise ModelError(msg)


def _is_key(key: Any) -> bool:
    if not isinstance(key, jax.Array):
        return False
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key.ndim == 0
    return key.dtype == jnp.uint32 and key.ndim == 1
