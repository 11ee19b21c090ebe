"""One process of a distributed run: ``ddp_child RANK FOLDER``."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import ntkstats as nts
from ntkstats import collectors
from ntkstats.torch import attach
from tests.torch import networks


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    x, y = networks.digits()
    module = DistributedDataParallel(networks.mlp())
    recorder = None
    if rank == 0:
        recorder = nts.Recorder(
            folder / "run",
            module,
            nts.Probe(x[:5]),
            collectors.ntk_spectrum(),
            at=nts.RecordAt.every(2),
            strict=True,
        )
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    with attach(recorder, module, optimizer):
        for step in range(4):
            rows = slice(32 * step + 16 * rank, 32 * step + 16 * rank + 16)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(x[rows]), y[rows]).backward()
            optimizer.step()
    torch.save(module.module.state_dict(), folder / f"final{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
