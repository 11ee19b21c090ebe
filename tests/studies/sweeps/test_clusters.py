"""Tasks on Dask and SLURM: the engines are real, and workers are killed."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studies._errors import StudyError
from studies.sweeps import LineScreen, run_sweep, sweep
from studies.sweeps._signs import read_sign
from tests.studies.sweeps import gram

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def quiet():
    return LineScreen(io.StringIO())


def start(*words, log):
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", *words], env=ENVIRONMENT, stdout=file, stderr=file, cwd=ROOT
        )


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers, each a process of its own."""
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    local = ("--interface", "lo", "--no-dashboard")
    scheduler = ("distributed.cli.dask_scheduler", "--port", "0", *local)
    worker = ("distributed.cli.dask_worker", "--no-nanny", "--nthreads", "1", *local)
    worker += ("--local-directory", str(tmp_path / "scratch"))
    running = [
        start(*scheduler, "--scheduler-file", str(file), log=tmp_path / "scheduler.log"),
        start(*worker, "--scheduler-file", str(file), log=tmp_path / "one.log"),
        start(*worker, "--scheduler-file", str(file), log=tmp_path / "two.log"),
    ]
    yield file, running[1:]
    for process in reversed(running):
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_dask_worker_is_killed_midway_and_nothing_is_lost(tmp_path, cluster, quiet):
    file, workers = cluster
    folder = tmp_path / "s"
    plan = sweep(gram.study, {"size": (4, 6, 8, 10, 12)}, base=gram.Config(seconds=1.0))
    run = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path\n"
            "from tests.studies.sweeps import gram\n"
            "from studies.sweeps import run_sweep, sweep\n"
            "plan = sweep(gram.study, {'size': (4, 6, 8, 10, 12)}, base=gram.Config(seconds=1.0))\n"
            f"tally = run_sweep(plan, Path({str(folder)!r}), executor='dask',\n"
            f"                  options={{'scheduler': {str(file)!r}}})\n"
            "print(tally.ran, len(tally.failed))\n",
        ],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    by_process = {w.pid: w for w in workers}
    deadline = time.monotonic() + 120
    busy = None
    while busy is None:
        assert time.monotonic() < deadline
        assert run.poll() is None
        signs = [read_sign(f) for f in folder.glob("live/*.json")]
        at_work = [s.process for s in signs if s is not None and s.done > 3]
        busy = next((p for p in at_work if p in by_process), None)
        time.sleep(0.02)
    by_process[busy].send_signal(signal.SIGKILL)
    out, _ = run.communicate(timeout=120)
    assert out.split() == ["5", "0"]
    assert len(list(folder.glob("tasks/*/eigenvalues.npy"))) == 5
    assert not list(folder.glob("tasks/*.partial"))
    assert not list(folder.glob("failed/*"))
    assert run_sweep(plan, folder, quiet).kept == 5


def test_dask_runs_every_task_and_tells_of_failures(tmp_path, quiet):
    distributed = pytest.importorskip("distributed")
    plan = sweep(gram.study, {"size": (4, 6, 8)}, base=gram.Config(mishap="raise@6"))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        where = {"scheduler": cluster.scheduler_address}
        tally = run_sweep(plan, tmp_path / "s", quiet, executor="dask", options=where)
    assert (tally.ran, [o.label for o in tally.failed]) == (2, ["Gram 6x12"])


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_submitit_runs_every_task_and_tells_of_failures(tmp_path, quiet):
    pytest.importorskip("submitit")
    plan = sweep(gram.study, {"size": (4, 6, 8)}, base=gram.Config(mishap="raise@6"))
    where = {"cluster": "debug"}
    tally = run_sweep(plan, tmp_path / "s", quiet, executor="slurm", options=where)
    assert (tally.ran, [o.label for o in tally.failed]) == (2, ["Gram 6x12"])


def test_a_scheduler_that_does_not_answer(tmp_path, quiet, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("studies.sweeps._dask._SECONDS", 1)
    plan = sweep(gram.study, {"size": (4,)})
    where = {"scheduler": "tcp://127.0.0.1:1"}
    with pytest.raises(StudyError, match="No Dask scheduler answers at tcp"):
        run_sweep(plan, tmp_path / "s", quiet, executor="dask", options=where)


# Scripts that stand for SLURM on one machine: they run what they are handed, as SLURM would.
SBATCH = """#!/usr/bin/env bash
script="$1"; state="$FAKE_SLURM"; id=$(( $(cat "$state/last" 2>/dev/null || echo 100) + 1 ))
echo $id > "$state/last"
echo "Submitted batch job $id"
array=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
cp "$script" "$state/script.sh"
for i in $(seq 0 "${array:-0}"); do
  echo "RUNNING" > "$state/${id}_$i"
  ( SLURM_JOB_ID=$(( id * 100 + i )) SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_ID=$i \\
    SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 \\
    SLURM_JOB_NODELIST=localhost bash "$script" > "$state/$i.log" 2>&1
    if [ $? = 0 ]; then echo COMPLETED > "$state/${id}_$i"; else echo FAILED > "$state/${id}_$i"; fi
  ) < /dev/null > /dev/null 2>&1 &
done
"""
SRUN = """#!/usr/bin/env bash
while [[ "$1" == -* ]]; do
  if [[ "$1" == --*=* || "$1" == --unbuffered ]]; then shift; else shift 2; fi
done
exec "$@"
"""
SACCT = """#!/usr/bin/env bash
echo "JobID|State|NodeList|"
for file in "$FAKE_SLURM"/*_*; do echo "$(basename "$file")|$(cat "$file")|localhost|"; done
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    (tmp_path / "bin").mkdir()
    (tmp_path / "state").mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT), ("scancel", "")):
        script = tmp_path / "bin" / name
        script.write_text(text or "#!/usr/bin/env bash\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path / "state"))
    monkeypatch.setattr("studies.sweeps._slurm._LOOK", 0.2)
    return tmp_path / "state"


@pytest.mark.slow
# submitit of some versions leaves files open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_slurm_gets_one_array_and_its_failures_are_told(tmp_path, quiet, slurm):
    plan = sweep(gram.study, {"size": (4, 6), "mishap": ("die@6",)})
    options = {"timeout_min": "7", "slurm_partition": "tiny", "gpus_per_node": "1"}
    tally = run_sweep(plan, tmp_path / "s", quiet, executor="slurm", workers=2, options=options)
    assert tally.ran == 1
    [lost] = tally.failed
    assert (lost.label, lost.state) == ("Gram 6x12", "lost")
    assert lost.why.startswith("the worker was lost (job 101_1, ")
    script = (slurm / "script.sh").read_text()
    for line in ("--array=0-1%2", "--partition=tiny", "--time=7", "--gpus-per-node=1"):
        assert f"#SBATCH {line}\n" in script


def test_slurm_is_not_here(tmp_path, quiet):
    pytest.importorskip("submitit")
    plan = sweep(gram.study, {"size": (4,)})
    with pytest.raises(StudyError, match="submitit does not take this"):
        run_sweep(plan, tmp_path / "s", quiet, executor="slurm")
    wrong = {"cluster": "local", "color": "blue"}
    with pytest.raises(StudyError, match="color"):
        run_sweep(plan, tmp_path / "s", quiet, executor="slurm", options=wrong)
