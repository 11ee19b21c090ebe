"""What the files say about the runs they show."""

from __future__ import annotations

import json
import re

import matplotlib.pyplot as plt
import pytest
import xarray as xr
from PIL import Image

from ntkstats.errors import PlotError
from ntkstats.plots import save


@pytest.fixture
def figure():
    fig, ax = plt.subplots(figsize=(2.0, 1.5))
    ax.plot([0, 1], [0, 1])
    yield fig
    plt.close(fig)


def dataset(run_id="4f1c-a", config='{"width": 16, "lr": 0.1}'):
    return xr.Dataset(attrs={"run_id": run_id, "config": config})


def in_png(path):
    with Image.open(path) as image:
        return json.loads(image.text["Description"])


def in_pdf(path):
    [text] = re.findall(rb"/Keywords \((.*?)\)\s*(?:/|>>)", path.read_bytes(), flags=re.DOTALL)
    return json.loads(text.decode("latin-1").replace("\\(", "(").replace("\\)", ")"))


def test_png_pdf_and_json_name_the_runs(figure, tmp_path):
    png, pdf, beside = save(
        figure, tmp_path / "deep" / "fig1", runs=dataset(), formats=("png", "pdf")
    )
    said = json.loads(beside.read_text())
    assert (png.name, pdf.name, beside.name) == ("fig1.png", "fig1.pdf", "fig1.runs.json")
    assert [r["run_id"] for r in said["runs"]] == ["4f1c-a"]
    assert in_png(png) == said
    assert in_pdf(pdf) == said


def test_svg_names_the_runs_too(figure, tmp_path):
    svg, _ = save(figure, tmp_path / "fig", runs="some-id", formats="svg")
    assert "some-id" in svg.read_text()


def test_runs_can_be_a_mapping_datasets_or_ids(figure, tmp_path):
    for i, runs in enumerate(
        ({"a": dataset("r1"), "b": dataset("r2")}, [dataset("r1"), "r2"], ("r1", "r2"))
    ):
        *_, beside = save(figure, tmp_path / str(i), runs=runs, formats=("png",))
        assert [r["run_id"] for r in json.loads(beside.read_text())["runs"]] == ["r1", "r2"]


def test_concatenated_runs_are_all_named(figure, tmp_path):
    *_, beside = save(figure, tmp_path / "f", runs=dataset(["r1", "r2"]), formats=("png",))
    assert [r["run_id"] for r in json.loads(beside.read_text())["runs"]] == ["r1", "r2"]


def test_config_hash_tells_configurations_apart_but_not_their_spelling(figure, tmp_path):
    def hashed(config):
        *_, beside = save(figure, tmp_path / "f", runs=dataset(config=config), formats=("png",))
        return json.loads(beside.read_text())["runs"][0]["config_hash"]

    same = hashed('{"width": 16, "lr": 0.1}')
    assert same == hashed('{"lr":0.1,"width":16}') == hashed({"width": 16, "lr": 0.1})
    assert hashed('{"width": 17, "lr": 0.1}') != same
    assert hashed("not json") != same
    assert hashed(None) is None


def test_same_figure_gives_the_same_bytes_without_path_or_time(figure, tmp_path):
    kinds = ("png", "pdf", "svg")
    first = save(figure, tmp_path / "one" / "f", runs=dataset(), formats=kinds)
    second = save(figure, tmp_path / "two" / "f", runs=dataset(), formats=kinds)
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
        assert str(tmp_path).encode() not in a.read_bytes()
    assert b"CreationDate" not in first[1].read_bytes()


def test_saving_keeps_the_size_that_was_asked_for(figure, tmp_path):
    png, _ = save(figure, tmp_path / "f", runs="r", formats=("png",))
    with Image.open(png) as image:
        assert image.width / image.info["dpi"][0] == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(
    ("runs", "formats", "part"),
    [
        ([], ("png",), "runs is empty"),
        ([3], ("png",), "runs holds a int"),
        (xr.Dataset(), ("png",), "no attribute 'run_id'"),
        ("r", ("jpg",), "expected some of pdf, png, svg"),
        ("r", (), "expected some of pdf, png, svg"),
    ],
)
def test_bad_input_is_answered_and_nothing_is_written(figure, tmp_path, runs, formats, part):
    with pytest.raises(PlotError) as caught:
        save(figure, tmp_path / "f", runs=runs, formats=formats)
    assert part in str(caught.value)
    assert not list(tmp_path.iterdir())
