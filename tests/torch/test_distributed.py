"""Two processes train together and one of them records."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ntkstats as nts
from ntkstats.torch import on_probe
from tests.torch import networks
from tests.torch.oracle import gram_of

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch has no distributed training"
)


@pytest.mark.slow
def test_the_first_of_two_processes_records(tmp_path):
    command = [sys.executable, "-m", "tests.torch.ddp_child"]
    root = Path(__file__).parents[2]
    children = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], cwd=root) for rank in range(2)
    ]
    assert [child.wait(timeout=300) for child in children] == [0, 0]
    run = nts.open_run(tmp_path / "run")
    assert run.step.values.tolist() == [0, 2, 4]
    assert list(run.layer.values) == ["0", "3"]
    finals = [torch.load(tmp_path / f"final{rank}.pt") for rank in range(2)]
    assert all(torch.equal(value, finals[1][name]) for name, value in finals[0].items())
    module = networks.mlp()
    module.load_state_dict(finals[0])
    x, _ = networks.digits()
    model, _ = on_probe(module, nts.Probe(x[:5]))
    assert run.trace.values[-1] == pytest.approx(gram_of(model, module).trace(), rel=1e-5)
