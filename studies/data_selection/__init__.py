"""Data selection: whether sets that random network distillation picks are better, and why.

After Tovey et al. (2023), *Towards a phenomenological understanding of neural networks: data*: its
three claims, a league of all selectors, what matters in random network distillation, and atomic
environments in a tolerance loop.
"""

from studies._study import Study
from studies.data_selection._config import Config as Config
from studies.data_selection._config import tasks
from studies.data_selection._report import report, report_all
from studies.data_selection._trials import run

study = Study(
    name="data_selection",
    summary="Does RND pick better training sets, and do starting entropy and trace tell?",
    config=Config,
    tasks=tasks,
    run=run,
    report=report,
    report_sweep=report_all,
)

__all__ = ["Config", "study"]
