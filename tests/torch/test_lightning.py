"""Recording inside a Lightning Trainer."""

import logging

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ntkstats as nts
from ntkstats import collectors
from tests.torch import networks

with_lightning = pytest.importorskip("lightning.pytorch")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*"),
    pytest.mark.filterwarnings("ignore:.*GPU available but not used.*"),
]


class Digits(with_lightning.LightningModule):
    def __init__(self, fails_at=None):
        super().__init__()
        self.net = networks.mlp()
        self.fails_at = fails_at

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, index):
        if self.global_step == self.fails_at:
            raise RuntimeError("no more")
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.2)


def fit(module, callback, epochs=1, checkpoint=None, **options):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    x, y = networks.digits(128)
    trainer = with_lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback] if callback else [],
        **options,
    )
    trainer.fit(module, DataLoader(TensorDataset(x, y), 16), ckpt_path=checkpoint)
    return trainer


def callback_for(path, model, **options):
    from ntkstats.torch import LightningCallback

    x, y = networks.digits(200)
    measure = [collectors.ntk_spectrum(), collectors.loss("cross_entropy")]
    options = {"at": nts.RecordAt.every(2), "strict": True, **options}
    return LightningCallback(path, model, nts.Probe(x[190:], y[190:]), measure, **options)


def test_a_fit_is_recorded_and_trains_as_without(tmp_path):
    finals = []
    for record in (True, False):
        torch.manual_seed(0)
        module = Digits()
        fit(
            module,
            callback_for(tmp_path / "run", module) if record else None,
            accumulate_grad_batches=2,
        )
        finals.append(module.state_dict())
    assert all(torch.equal(value, finals[1][name]) for name, value in finals[0].items())
    run = nts.open_run(tmp_path / "run")
    # 8 batches of 16 make 4 updates.
    assert run.step.values.tolist() == [0, 2, 4]
    assert run.attrs["status"] == "finished"
    assert (np.diff(run.loss.values) < 0).all()
    assert list(run.layer.values) == ["net/0", "net/3"]


def test_a_fit_goes_on_from_a_checkpoint(tmp_path):
    torch.manual_seed(0)
    module = Digits()
    trainer = fit(module, callback_for(tmp_path / "run", module))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = Digits()
    callback = callback_for(tmp_path / "run", again, resume=True)
    fit(again, callback, epochs=2, checkpoint=tmp_path / "last.ckpt")
    assert nts.open_run(tmp_path / "run").step.values.tolist() == list(range(0, 17, 2))


def test_a_network_inside_the_module_and_an_exception(tmp_path):
    module = Digits(fails_at=3)
    inner = nts.as_model(module.net, split=lambda module: module.net)
    with pytest.raises(RuntimeError, match="no more"):
        fit(module, callback_for(tmp_path / "run", inner))
    run = nts.open_run(tmp_path / "run")
    assert run.attrs["status"] == "interrupted"
    assert run.step.values.tolist() == [0, 2]
    assert list(run.layer.values) == ["0", "3"]


def test_only_the_first_process_opens_the_run(tmp_path):
    class Trainer:
        is_global_zero = False
        global_step = 0

    module = Digits()
    callback = callback_for(tmp_path / "run", module)
    callback.on_fit_start(Trainer, module)
    callback.on_before_optimizer_step(Trainer, module, None)
    callback.on_train_end(Trainer, module)
    assert not list(tmp_path.iterdir())
