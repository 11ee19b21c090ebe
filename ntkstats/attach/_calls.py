"""Record an object that owns its loop, by the method that makes an update."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ntkstats.errors import MissingExtraError, RecordingError
from ntkstats.recording import Recorder

_MISSING: Any = object()


@contextmanager
def record_calls(
    owner: Any,
    method: str,
    recorder: Recorder,
    *,
    obj_of: Callable[[Any], Any],
    step_of: Callable[[Any], int] | None = None,
    extras_of: Callable[..., Mapping[str, Any]] | None = None,
) -> Iterator[Recorder]:
    """Within the block, every call of ``owner.method`` is preceded by a call of the recorder.

    For objects that own their loop: a trainer with ``fit()``, an agent whose network updates
    itself. The method is replaced on this one object and put back at the end, whatever happens.
    Its arguments, its value and its exceptions pass through untouched. After the block the
    recorder is finished with the last state; a block left by an exception marks the run as
    interrupted.

    Parameters
    ----------
    owner
        The object whose method makes one update a call.
    method
        Name of the method.
    recorder
        A fresh `Recorder`.
    obj_of
        ``obj_of(owner)``: what the recorder's model splits (parameters, TrainState, module).
    step_of
        ``step_of(owner)``: number of updates applied so far; by default the calls that returned
        within the block. Give it when a run is resumed.
    extras_of
        ``extras_of(owner, *args, **kwargs) -> {name: value}`` from the arguments of the call:
        what is passed to the recorder by keyword. After the block it gets those of the last call.

    Yields
    ------
    Recorder

    Raises
    ------
    RecordingError
        On entry: the method cannot be replaced (missing, asynchronous, a generator, a special
        method, an object without attributes of its own), or records with this recorder already.
    NtkStatsError
        On entry, what does not fit together, as at the first call of a `Recorder`. An object that
        has no state yet (``obj_of`` fails or gives None) is looked at again at the first call.

    Notes
    -----
    Inside the loop nothing of this is raised, unless the recorder is ``strict``: what goes wrong
    is stored with the run and warned about once. A call that is made within another one belongs to
    that update and is not counted. Copies of the object, pickled or deep, are made without the
    recorder.

    Examples
    --------
    >>> import tempfile, jax.numpy as jnp, ntkstats as nts
    >>> class Trainer:
    ...     def __init__(self):
    ...         self.w = jnp.ones((3, 2))
    ...
    ...     def update(self):
    ...         self.w = 0.9 * self.w
    ...
    ...     def fit(self):
    ...         for _ in range(4):
    ...             self.update()
    >>> trainer, folder = Trainer(), tempfile.TemporaryDirectory()
    >>> recorder = nts.Recorder(
    ...     folder.name + "/run",
    ...     nts.as_model(lambda w, x: x @ w),
    ...     nts.Probe(jnp.eye(3)),
    ...     nts.collectors.param_norm(),
    ...     at=nts.RecordAt.every(2),
    ... )
    >>> with nts.record_calls(trainer, "update", recorder, obj_of=lambda trainer: trainer.w):
    ...     trainer.fit()
    >>> [f"{norm:.2f}" for norm in nts.open_run(folder.name + "/run").param_norm.values]
    ['2.45', '1.98', '1.61']
    >>> folder.cleanup()
    """
    original = _method(owner, method, recorder)
    watching = _Watching(owner, recorder, obj_of, step_of, extras_of)
    watching.bind_early()
    wrapper = _Recorded(owner, method, original, watching)
    held = _replace(owner, method, wrapper)
    try:
        yield recorder
    except BaseException as error:
        _restore(owner, method, wrapper, held)
        recorder.__exit__(type(error), error, error.__traceback__)
        raise
    _restore(owner, method, wrapper, held)
    watching.finish()


class _Watching:
    """The recorder's side: what is read off the object, and errors that stay out of the loop."""

    def __init__(
        self,
        owner: Any,
        recorder: Recorder,
        obj_of: Callable[[Any], Any],
        step_of: Callable[[Any], int] | None,
        extras_of: Callable[..., Mapping[str, Any]] | None,
    ) -> None:
        self._owner, self.recorder = owner, recorder
        self._obj_of, self._step_of, self._extras_of = obj_of, step_of, extras_of
        self._returned = 0
        self._last: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self._noted = self._gave_up = False

    def bind_early(self) -> None:
        """Raise what does not fit before the loop starts, where the object has its state."""
        try:
            obj = self._obj_of(self._owner)
        except Exception:
            return  # it may get its state later; noted at the first call if not
        if obj is None:
            return
        try:
            self.recorder.bind(obj)
        except MissingExtraError:
            if self._extras_of is None:
                raise

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record the state that the call is about to change."""
        self._last = (args, kwargs)
        if self._gave_up:
            return
        found = self._read()
        if found is None:
            return
        step, obj, extras = found
        try:
            self.recorder(step, obj, **extras)
        except Exception as error:
            # Only a first state that does not fit, or a strict recorder, gets here.
            if self.recorder.strict:
                raise
            self._gave_up = True
            self.recorder.note(error, step)

    def returned(self) -> None:
        """One more update was made."""
        self._returned += 1

    def finish(self) -> None:
        """Record the last state and close the run."""
        found = None if self._gave_up else self._read()
        if found is None:
            self.recorder.close()
            return
        step, obj, extras = found
        try:
            self.recorder.finish(obj, step, **extras)
        except Exception as error:
            if self.recorder.strict:
                raise
            self.recorder.note(error, step)
            self.recorder.close()

    def _read(self) -> tuple[int, Any, Mapping[str, Any]] | None:
        """Step, object and extras; None, and noted once, if they cannot be had."""
        step = None
        try:
            step = self._returned if self._step_of is None else self._step_of(self._owner)
            obj = self._obj_of(self._owner)
            args, kwargs = self._last
            extras = (
                {} if self._extras_of is None else self._extras_of(self._owner, *args, **kwargs)
            )
            if obj is None:
                message = (
                    f"obj_of gave None for a {type(self._owner).__name__}; expected what the model "
                    "splits. Name the attribute that holds the parameters during training."
                )
                raise RecordingError(message)
            return step, obj, dict(extras)
        except Exception as error:
            if not self._noted:
                self._noted = True
                self.recorder.note(error, step)
        return None


class _Recorded:
    """Stands in for a method of one object."""

    def __init__(self, owner: Any, name: str, original: Any, watching: _Watching) -> None:
        functools.update_wrapper(self, original)
        self._owner, self._name, self._original = owner, name, original
        self.watching: _Watching | None = watching
        self._inside = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        watching = self.watching
        if watching is None or self._inside:
            return self._original(*args, **kwargs)
        self._inside = True
        try:
            watching.before(args, kwargs)
            value = self._original(*args, **kwargs)
            watching.returned()
            return value
        finally:
            self._inside = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def __reduce__(self) -> Any:
        # A checkpoint made inside the loop holds the method itself, not the recorder.
        if getattr(self._original, "__self__", None) is self._owner:
            return getattr, (self._owner, self._name)
        return _itself, (self._original,)


def _itself(value: Any) -> Any:
    return value


def _method(owner: Any, name: str, recorder: Recorder) -> Any:
    """The method to be replaced; refuses what a wrapper cannot stand in for."""
    kind = owner.__name__ if isinstance(owner, type) else type(owner).__name__
    if isinstance(owner, type):
        message = (
            f"record_calls was given the class {kind}; expected the object that trains, since the "
            f"state that is recorded is its own. Pass the instance: trainer = {kind}(...)."
        )
        raise RecordingError(message)
    original = getattr(owner, name, _MISSING)
    if not callable(original):
        what = "has no attribute" if original is _MISSING else "has, but cannot call,"
        message = (
            f"{kind} {what} {name!r}; expected the name of the method that makes one update. Look "
            "it up in the loop of the object."
        )
        raise RecordingError(message)
    if name.startswith("__") and name.endswith("__"):
        message = (
            f"{name!r} is a special method, which Python looks up on the class {kind} and not on "
            "the object; expected an ordinary method. Wrap the one that calls it."
        )
        raise RecordingError(message)
    if (sort := _deferred(original)) is not None:
        message = (
            f"{kind}.{name} is {sort}: a call returns before the update is made; expected a method "
            "that has made it when it returns. Call recorder(step, obj) inside it instead."
        )
        raise RecordingError(message)
    layer = original
    while layer is not None:
        if isinstance(layer, _Recorded) and _records_with(layer, recorder):
            message = (
                f"{kind}.{name} records with this recorder already; expected another recorder. "
                "Nest blocks with one recorder each."
            )
            raise RecordingError(message)
        layer = getattr(layer, "__wrapped__", None)
    return original


def _records_with(layer: _Recorded, recorder: Recorder) -> bool:
    return layer.watching is not None and layer.watching.recorder is recorder


def _deferred(function: Any) -> str | None:
    """What kind of function returns before its work is done."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    plain = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    kinds = {
        "asynchronous": inspect.iscoroutinefunction,
        "an asynchronous generator": inspect.isasyncgenfunction,
        "a generator": inspect.isgeneratorfunction,
    }
    return next((kind for kind, is_kind in kinds.items() if is_kind(plain)), None)


def _replace(owner: Any, name: str, wrapper: _Recorded) -> Any:
    """Put the wrapper on the object; what it held there itself, if anything."""
    held: Any = getattr(owner, "__dict__", {}).get(name, _MISSING)
    slot = inspect.getattr_static(type(owner), name, None)
    if held is _MISSING and inspect.ismemberdescriptor(slot):
        held = getattr(owner, name)
    try:
        setattr(owner, name, wrapper)
    except Exception as error:
        message = (
            f"{type(owner).__name__}.{name} cannot be replaced on the object "
            f"({type(error).__name__}: {error}); expected an object with attributes of its own, "
            "not one with __slots__ or a frozen one. Wrap the object that holds it, or call "
            "recorder(step, obj) in the loop."
        )
        raise RecordingError(message) from error
    return held


def _restore(owner: Any, name: str, wrapper: _Recorded, held: Any) -> None:
    """Put back what was there; a wrapper that somebody wrapped meanwhile only passes calls on."""
    wrapper.watching = None
    slot = inspect.ismemberdescriptor(inspect.getattr_static(type(owner), name, None))
    current = getattr(owner, name, None) if slot else getattr(owner, "__dict__", {}).get(name)
    if current is not wrapper:
        return
    if held is _MISSING:
        delattr(owner, name)
    else:
        setattr(owner, name, held)
