"""Where the peers of the benchmarks are installed."""

import re
from pathlib import Path

from studies.benchmarks import engine

ROOT = Path(__file__).parents[2]


def test_peer_is_where_the_makefile_puts_it():
    makefile = (ROOT / "Makefile").read_text()
    peers = re.search(r"^PEERS := (\S+)$", makefile, re.MULTILINE)[1]
    pins = ROOT / re.search(r"^PEER_PINS := (\S+)$", makefile, re.MULTILINE)[1]
    rule = r"^\$\(PEERS\)/(\S+)/\.installed: \$\(PEER_PINS\)/(\S+)$"
    files = dict(re.findall(rule, makefile, re.MULTILINE))
    assert ROOT / peers / "neural-tangents" / "bin" / "python" == engine.PEER_PYTHON
    assert "neural-tangents==0.6.5" in (pins / files["neural-tangents"]).read_text().splitlines()
    assert sorted(files.values()) == sorted(path.name for path in pins.glob("*.txt"))
    made = re.search(r"/\.installed,([\w -]+)\)\)$", makefile, re.MULTILINE)[1]
    assert sorted(made.split()) == sorted(files)
    assert f"{peers}/" in (ROOT / ".gitignore").read_text().splitlines()
