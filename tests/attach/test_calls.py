"""A trainer that owns its loop is recorded by one of its methods, and notices nothing."""

import copy
import inspect
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import ntkstats as nts
from ntkstats.errors import HeadError, MissingExtraError, RecordingError, RecordingWarning

X, Y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
MODULE = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(10)])
PROBE = nts.Probe(X[-8:], Y[-8:])
BATCHES = [slice(64 * i, 64 * i + 64) for i in range(6)]


class Trainer:
    """The simplest object that owns its loop."""

    def __init__(self):
        params = MODULE.init(jax.random.key(0), X[:1])["params"]
        self.state = TrainState.create(apply_fn=MODULE.apply, params=params, tx=optax.adam(1e-2))
        self.log = []

    def fit(self, batches=BATCHES):
        for batch in batches:
            self.log.append(self.train_step(batch))
        return self.log

    def train_step(self, batch, *, scale=1.0):
        """One update."""
        if batch is None:
            msg = "the data are gone"
            raise OSError(msg)
        self.state, value = updated(self.state, X[batch], Y[batch], scale)
        return value

    def predict(self, x):
        return MODULE.apply({"params": self.state.params}, x)


@jax.jit
def updated(state, x, y, scale):
    def loss(params):
        logits = state.apply_fn({"params": params}, x)
        return scale * optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    value, grads = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=grads), value


def state_of(trainer):
    return trainer.state


def recorder_at(path, measure=None, *, at=None, probe=PROBE, **options):
    measure = nts.collectors.param_norm() if measure is None else measure
    at = nts.RecordAt.every(2) if at is None else at
    return nts.Recorder(path, nts.as_model(MODULE), probe, measure, at=at, **options)


def wrapped(trainer, recorder, method="train_step", **options):
    return nts.record_calls(trainer, method, recorder, **{"obj_of": state_of, **options})


# --- what is recorded -------------------------------------------------------------------------


def test_the_states_before_the_updates_and_the_last_one_are_recorded(tmp_path):
    by_hand = Trainer()
    recorder = recorder_at(tmp_path / "hand", nts.collectors.ntk_spectrum())
    for step, batch in enumerate(BATCHES):
        recorder(step, by_hand.state)
        by_hand.train_step(batch)
    recorder.finish(by_hand.state)

    trainer = Trainer()
    recorder = recorder_at(tmp_path / "wrapped", nts.collectors.ntk_spectrum())
    with wrapped(trainer, recorder) as given:
        assert given is recorder
        log = trainer.fit()
    assert "train_step" not in vars(trainer)
    np.testing.assert_array_equal(log, Trainer().fit())  # training is what it is without

    expected, found = nts.open_run(tmp_path / "hand"), nts.open_run(tmp_path / "wrapped")
    assert found.step.values.tolist() == [0, 2, 4, 6]
    assert found.attrs["status"] == "finished"
    np.testing.assert_array_equal(found.eigenvalues.values, expected.eigenvalues.values)
    assert found.entropy.values[0] != found.entropy.values[-1]


def test_steps_and_extras_are_read_off_the_object_and_the_call(tmp_path):
    trainer = Trainer()
    trainer.fit()
    live = nts.Probe.from_extra("batch", X[:64])
    recorder = recorder_at(
        tmp_path / "run",
        [nts.collectors.param_norm(), nts.collectors.ntk_spectrum()],
        probe=live,
        at=nts.RecordAt.every(3),
    )
    options = {
        "step_of": lambda trainer: int(trainer.state.step),
        "extras_of": lambda trainer, batch, **_: {"batch": X[batch], "size": batch.stop},
    }
    with wrapped(trainer, recorder, **options):
        trainer.fit()
    ds = nts.open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [6, 9, 12]
    assert ds["size"].values.tolist() == [64, 256, 384]
    model = nts.as_model(MODULE)
    last = nts.empirical_ntk(model, *model.split(trainer.state), X[BATCHES[-1]], outputs="trace")
    assert ds.trace.values[-1] == pytest.approx(float(jnp.trace(last.matrix)), rel=1e-4)


def test_each_block_of_a_nest_has_its_own_recorder(tmp_path):
    trainer = Trainer()
    outer, inner = (recorder_at(tmp_path / name) for name in ("outer", "inner"))
    with wrapped(trainer, outer):
        trainer.train_step(BATCHES[0])
        with wrapped(trainer, inner):
            trainer.fit(BATCHES[:3])
        trainer.train_step(BATCHES[1])
    assert "train_step" not in vars(trainer)
    assert nts.open_run(tmp_path / "outer").step.values.tolist() == [0, 2, 4, 5]
    assert nts.open_run(tmp_path / "inner").step.values.tolist() == [0, 2, 3]


def test_blocks_that_end_in_the_wrong_order_leave_a_method_that_works(tmp_path):
    trainer = Trainer()
    first, second = (wrapped(trainer, recorder_at(tmp_path / name)) for name in "ab")
    first.__enter__()
    second.__enter__()
    trainer.train_step(BATCHES[0])
    first.__exit__(None, None, None)
    trainer.train_step(BATCHES[0])
    second.__exit__(None, None, None)
    trainer.train_step(BATCHES[0])
    assert int(trainer.state.step) == 3
    assert nts.open_run(tmp_path / "a").step.values.tolist() == [0, 1]
    assert nts.open_run(tmp_path / "b").step.values.tolist() == [0, 2]


def test_a_call_within_a_call_is_part_of_one_update(tmp_path):
    class Accumulating(Trainer):
        def train_step(self, batch, **options):
            if batch.stop - batch.start > 32:
                middle = (batch.start + batch.stop) // 2
                self.train_step(slice(batch.start, middle))
                return self.train_step(slice(middle, batch.stop))
            return super().train_step(batch, **options)

    trainer = Accumulating()
    with wrapped(trainer, recorder_at(tmp_path / "run")):
        trainer.fit(BATCHES[:3])
    assert int(trainer.state.step) == 6
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [0, 2, 3]


def test_an_object_without_a_state_yet_is_looked_at_again(tmp_path):
    class Late(Trainer):
        def __init__(self):
            self.log = []

        def fit(self, batches=BATCHES):
            Trainer.__init__(self)
            return super().fit(batches)

    trainer = Late()
    with wrapped(trainer, recorder_at(tmp_path / "run")):
        trainer.fit()
    ds = nts.open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 2, 4, 6]
    assert not ds.attrs["failures"]


# --- what passes through ----------------------------------------------------------------------


def test_arguments_values_and_the_looks_of_the_method_pass_through(tmp_path):
    trainer = Trainer()
    alone = Trainer().train_step(BATCHES[1], scale=0.5)
    signature, text = inspect.signature(trainer.train_step), trainer.train_step.__doc__
    with wrapped(trainer, recorder_at(tmp_path / "run")):
        assert trainer.train_step(BATCHES[1], scale=0.5) == alone
        assert inspect.signature(trainer.train_step) == signature
        assert trainer.train_step.__doc__ == text
        with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
            trainer.train_step(BATCHES[1], nonsense=1)


def test_exceptions_of_the_method_pass_through_and_interrupt_the_run(tmp_path):
    trainer = Trainer()
    with (
        pytest.raises(OSError, match="the data are gone") as caught,
        wrapped(trainer, recorder_at(tmp_path / "run")),
    ):
        trainer.fit([*BATCHES[:3], None])
    assert caught.value.__cause__ is None
    assert "train_step" not in vars(trainer)
    ds = nts.open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 2]
    assert ds.attrs["status"] == "interrupted"


def test_a_call_that_failed_and_is_made_again_is_one_update(tmp_path):
    trainer = Trainer()
    with wrapped(trainer, recorder_at(tmp_path / "run", at=nts.RecordAt.every(1))):
        trainer.train_step(BATCHES[0])
        with pytest.raises(OSError, match="gone"):
            trainer.train_step(None)
        trainer.train_step(BATCHES[0])
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [0, 1, 2]


def test_an_interruption_from_the_keyboard_restores_the_method(tmp_path):
    trainer = Trainer()

    def pressed():
        trainer.train_step(BATCHES[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), wrapped(trainer, recorder_at(tmp_path / "run")):
        pressed()
    assert "train_step" not in vars(trainer)
    assert nts.open_run(tmp_path / "run").attrs["status"] == "interrupted"


def test_a_method_held_by_the_object_is_put_back(tmp_path):
    trainer = Trainer()
    held = partial(Trainer.train_step, trainer)
    trainer.train_step = held
    with wrapped(trainer, recorder_at(tmp_path / "run")):
        trainer.fit(BATCHES[:1])
    assert vars(trainer)["train_step"] is held


def test_a_slot_that_holds_the_method_is_put_back(tmp_path):
    class Slotted:
        __slots__ = ("state", "step")

    trainer = Slotted()
    trainer.state = Trainer().state
    trainer.step = step = lambda: None
    with wrapped(trainer, recorder_at(tmp_path / "run"), "step"):
        trainer.step()
    assert trainer.step is step
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [0, 1]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_made_within_the_block_are_free_of_the_recorder(tmp_path, copied):
    trainer = Picklable()
    with wrapped(trainer, recorder_at(tmp_path / "run"), "add", obj_of=lambda t: t.params):
        trainer.add()
        other = copied(trainer)
        other.add()
        other.add()
        assert (trainer.n, other.n) == (1, 3)
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [0, 1]


class Picklable:
    def __init__(self):
        self.n = 0
        self.params = jax.device_get(Trainer().state.params)

    def add(self):
        self.n += 1


# --- what goes wrong on our side --------------------------------------------------------------


def test_a_state_that_stops_fitting_is_a_failure_and_training_goes_on(tmp_path):
    class Growing(Trainer):
        def train_step(self, batch):
            if self.state.step == 3:  # the layers are those of another network from now on
                params = nn.Dense(10).init(jax.random.key(0), X[:1])["params"]
                self.state = self.state.replace(params=params, step=4)
                return 0.0
            return super().train_step(batch) if self.state.step < 3 else 0.0

    trainer = Growing()
    with (
        pytest.warns(RecordingWarning, match="at step 4: ParamsError.*goes on") as warned,
        wrapped(trainer, recorder_at(tmp_path / "run")),
    ):
        trainer.fit()
    assert len(warned) == 1
    assert len(trainer.log) == 6
    ds = nts.open_run(tmp_path / "run")
    assert ds.step.values.tolist() == [0, 2]
    assert [f["step"] for f in ds.attrs["failures"]] == [4, 6]


def test_a_state_that_cannot_be_found_is_said_once(tmp_path):
    trainer = Trainer()
    with (
        pytest.warns(RecordingWarning, match=r"at step 0: AttributeError.*'weights'") as warned,
        wrapped(trainer, recorder_at(tmp_path / "run"), obj_of=lambda t: t.weights),
    ):
        log = trainer.fit()
    assert len(warned) == 1
    assert warned[0].filename == __file__
    np.testing.assert_array_equal(log, Trainer().fit())
    with (
        pytest.warns(RecordingWarning, match="obj_of gave None for a Trainer"),
        wrapped(trainer, recorder_at(tmp_path / "other"), obj_of=lambda t: None),
    ):
        trainer.fit()


def test_strict_recorders_raise(tmp_path):
    trainer = Trainer()
    recorder = recorder_at(tmp_path / "run", strict=True)
    with (
        pytest.raises(RecordingError, match="'weights'"),
        wrapped(trainer, recorder, obj_of=lambda t: t.weights),
    ):
        trainer.fit()
    assert "train_step" not in vars(trainer)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"measure": nts.collectors.ntk_spectrum(head="critic")}, HeadError, "critic"),
        ({"probe": nts.Probe.from_extra("obs", X[:8])}, MissingExtraError, "obs=..."),
    ],
)
def test_what_does_not_fit_is_raised_before_the_loop(tmp_path, options, error, message):
    trainer = Trainer()
    with (
        pytest.raises(error, match=message),
        wrapped(trainer, recorder_at(tmp_path / "run", **options)),
    ):
        pytest.fail("the block was entered")
    assert "train_step" not in vars(trainer)


class Odd:
    special = 3

    async def later(self): ...

    async def stream(self):
        yield

    def steps(self):
        yield

    def __call__(self): ...

    @property
    def made(self):
        return lambda: None


class NoRoom:
    __slots__ = ()

    def step(self): ...


class Awaited:
    async def __call__(self): ...


def with_attribute(value):
    odd = Odd()
    odd.update = value
    return odd


@pytest.mark.parametrize(
    ("owner", "method", "message"),
    [
        (Odd, "steps", "the class Odd; expected the object"),
        (Odd(), "train", "Odd has no attribute 'train'"),
        (Odd(), "special", "cannot call, 'special'"),
        (Odd(), "__call__", "looks up on the class Odd"),
        (Odd(), "later", "Odd.later is asynchronous"),
        (Odd(), "stream", "an asynchronous generator"),
        (Odd(), "steps", "Odd.steps is a generator"),
        (with_attribute(partial(Odd.steps, None)), "update", "is a generator"),
        (with_attribute(Awaited()), "update", "is asynchronous"),
        (Odd(), "made", "Odd.made cannot be replaced on the object .*__slots__ or a frozen one"),
        (NoRoom(), "step", "NoRoom.step cannot be replaced on the object"),
    ],
)
def test_methods_that_cannot_be_wrapped_are_refused(tmp_path, owner, method, message):
    recorder = recorder_at(tmp_path / "run")
    with (
        pytest.raises(RecordingError, match=message),
        wrapped(owner, recorder, method, obj_of=lambda _: None),
    ):
        pytest.fail("the block was entered")


def test_one_recorder_twice_is_refused(tmp_path):
    trainer, recorder = Trainer(), recorder_at(tmp_path / "run")
    with wrapped(trainer, recorder):
        with (
            pytest.raises(RecordingError, match="with this recorder already"),
            wrapped(trainer, recorder),
        ):
            pytest.fail("the block was entered")
        trainer.train_step(BATCHES[0])
    assert nts.open_run(tmp_path / "run").step.values.tolist() == [0, 1]
