"""What goes wrong on our side of a wrapped method, and what cannot be wrapped."""

import inspect
from functools import partial

import jax
import numpy as np
import pytest
from flax import linen as nn

import ntkstats as nts
from ntkstats.errors import HeadError, MissingExtraError, RecordingError, RecordingWarning
from tests.attach.trainer import BATCHES, Trainer, X, recorder_at, wrapped


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
    assert warned[0].filename == inspect.getfile(Trainer)  # the line in the loop
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
