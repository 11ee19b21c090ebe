"""The code of the README and of every page runs as it is printed."""

import re
from pathlib import Path

import matplotlib as mpl
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text())]
FIRST_READ = [page for page in WITH_CODE if page.name in ("README.md", "getting-started.md")]
OTHERS = [page for page in WITH_CODE if page not in FIRST_READ]
RUNS = [
    *(pytest.param(page, marks=pytest.mark.optimised, id=page.name) for page in FIRST_READ),
    *(pytest.param(page, id=page.name) for page in OTHERS),
    *(pytest.param(page, marks=pytest.mark.slow, id=f"{page.name} optimised") for page in OTHERS),
]


def test_pages_with_code_are_found():
    assert {"README.md", "getting-started.md", "attach.md"} <= {page.name for page in WITH_CODE}


# What the trainers of other libraries warn about on a small machine.
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
@pytest.mark.parametrize("page", RUNS)
def test_code_on_the_page_runs(page, tmp_path, monkeypatch):
    if page.name == "pytorch.md":
        for package in ("torch", "lightning", "transformers", "accelerate"):
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    namespace: dict = {"__name__": page.stem}
    with mpl.rc_context({"backend": "agg"}):
        for match in BLOCK.finditer(text):
            line = text[: match.start()].count("\n") + 2
            # Blank lines in front make tracebacks point at the page.
            source = "\n" * (line - 1) + match.group(1)
            exec(compile(source, str(page), "exec"), namespace)


def test_readme_names_the_commands_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    readme = (ROOT / "README.md").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in readme
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    for line in (
        "-m studies run quickstart",
        'pytest -n auto --dist worksteal -m "not slow and not gpu"',
    ):
        assert line in makefile
        assert line in readme
