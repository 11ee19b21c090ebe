"""The page in the docs is that of the committed answers."""

import json
import re

from studies._markdown import MINUS, NOTHING, interval, number, table
from studies.data_selection._page import FOLDER, PAGE, render
from studies.data_selection._report import ANSWERS

FOUND = json.loads((FOLDER / ANSWERS).read_text())


def test_the_page_is_that_of_the_answers():
    assert PAGE.read_text() == render(FOUND)


def test_the_page_holds_the_league_and_the_claims_with_intervals():
    page = PAGE.read_text()
    for claim in FOUND["claims"]:
        assert claim["statement"] in page
    for part in next(c for c in FOUND["claims"] if c["name"] == "ii/loss")["parts"]:
        assert interval(part["interval"], 1) in page
    for row in FOUND["overview"]:
        assert f"`{row['selector']}`" in page


def test_the_summary_says_what_the_answers_say():
    by_name = {c["name"]: c for c in FOUND["claims"]}
    league = {row["selector"]: row for row in FOUND["overview"]}
    rnd = by_name["ii/loss"]
    assert rnd["against"] == 0
    better = {p["where"] for p in rnd["parts"] if p["interval"][2] < 0}
    assert not any(where.startswith("mnist5k, dense") for where in better)
    assert "concrete, dense, 80" in better
    assert "mnist5k, convolutional, 20" in better
    assert "mnist5k, convolutional, 60" not in better
    for case in ("auto_mpg, dense", "digits, dense", "digits, convolutional"):
        assert any(where.startswith(case) for where in better)
    # Entropy: on fuel consumption and nowhere else; trace: with and against.
    entropy = [p["where"] for p in by_name["i/effective_entropy"]["parts"] if p["interval"][2] < 0]
    assert entropy
    assert all(where.startswith("auto_mpg") for where in entropy)
    assert by_name["i/trace"]["verdict"] == "mixed"
    strength = [by_name[f"i/{f}"]["for"] for f in ("posterior_variance", "log_determinant")]
    assert strength[0] > strength[1] > by_name["i/effective_entropy"]["for"]
    for name in ("iii/entropy", "iii/trace"):
        assert by_name[name]["for"] > 0.8 * by_name[name]["places"]
    winner = FOUND["overview"][0]
    assert winner["selector"] == "MeanVariance"
    assert winner["better"] == winner["places"]
    for name in ("EL2N", "GradNorm"):
        assert league[name]["worse"] == league[name]["places"]
    assert league["MaxNorm"]["better"] == 0
    lost = by_name["ablation/test loss, RNDLimit normalised less as it is"]["parts"]
    assert {p["where"].split(",")[0] for p in lost if p["interval"][1] > 0} == {"auto_mpg"}
    trace = by_name["ablation/trace, RND with inputs of one norm less random"]
    assert trace["verdict"] == "contradicted"
    optimism = by_name["atoms/optimism"]["parts"][-1]
    assert optimism["where"] == "when it ends"
    assert optimism["interval"][2] < 0
    assert by_name["atoms/RND/test"]["verdict"] == "mixed"
    assert by_name["atoms/strides/test"]["verdict"] == "undecided"


def test_every_figure_of_the_page_is_there():
    names = re.findall(r"\]\(data_selection/([a-z]+\.svg)\)", PAGE.read_text())
    assert len(names) >= 5
    for name in names:
        assert (FOLDER / name).read_text().lstrip().startswith("<?xml")


def test_numbers_in_words():
    assert (
        interval([-1.26, -2.0, -0.51], 1, mark=True) == f"**{MINUS}1.3 [{MINUS}2.0, {MINUS}0.5]**"
    )
    assert interval([0.5, -0.1, 1.0], 2, mark=True) == f"0.50 [{MINUS}0.10, 1.00]"
    assert interval([None] * 3, 1) == NOTHING
    assert number(-0.004, 2) == "0.00"
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
