"""A trainer that owns its loop is recorded by one of its methods, and notices nothing."""

import copy
import inspect
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntkstats as nts
from tests.attach.trainer import (
    BATCHES,
    MODULE,
    Trainer,
    X,
    recorder_at,
    wrapped,
)

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
