"""Where and with what a run was made, and configs as JSON."""

import enum
import json
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest

from ntkstats.errors import StoreError
from ntkstats.recording.live._facts import facts
from ntkstats.recording.store._json import differences, plain


def git(folder, *arguments):
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_git_revision_and_changes_are_noted(tmp_path, monkeypatch):
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("x = 1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "first")
    monkeypatch.chdir(tmp_path)
    clean = facts()["git"]
    assert len(clean["revision"]) == 40
    assert clean["changed"] is False
    (tmp_path / "code.py").write_text("x = 2")
    assert facts()["git"] == {"revision": clean["revision"], "changed": True}


@pytest.mark.parametrize("why", ["no repository", "no commit", "no git"])
def test_a_folder_without_a_revision_is_no_problem(tmp_path, monkeypatch, why):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    if why == "no commit":
        git(tmp_path, "init")
    if why == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    assert facts()["git"] is None


def test_facts_hold_no_path_and_are_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = json.dumps(facts())
    assert str(tmp_path) not in text
    assert socket.gethostname() not in text
    assert "/" not in text


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Config:
    size: np.int64
    colour: Colour
    nested: dict


def test_configs_become_plain_json():
    config = Config(np.int64(3), Colour.RED, {"a": (1, None), 2: {"y", "x"}, "p": Path("q/r")})
    expected = {
        "size": 3,
        "colour": "red",
        "nested": {"a": [1, None], "2": ["x", "y"], "p": "q/r"},
    }
    assert plain(config, "config") == expected
    assert plain(np.array([[1.5, 2.0]]), "config") == [[1.5, 2.0]]
    assert plain(jax.numpy.arange(2), "config") == [0, 1]


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (lambda: 1, r"c is a function and cannot be stored as JSON"),
        ({"a": {"b": object()}}, r"c\.a\.b is a object"),
        ([1, 2j], r"c\[1\] is a complex"),
        ({"key": jax.random.key(0)}, r"c\.key is a"),
        (Config, r"c is a type"),
    ],
)
def test_what_json_does_not_hold_is_refused_by_its_place(value, part):
    with pytest.raises(StoreError, match=part):
        plain(value, "c")


def test_differences_name_each_place():
    stored = {"a": 1, "b": {"c": [1, 2]}, "gone": None, "nan": float("nan")}
    given = {"a": 1, "b": {"c": [1, 3]}, "new": "x", "nan": float("nan")}
    assert list(differences(stored, given, "config")) == [
        "config.b.c was [1, 2] and is now [1, 3]",
        "config.gone was null and is now missing",
        'config.new is new ("x")',
    ]


def test_differences_of_long_values_show_the_place_that_differs():
    text = "x" * 300
    (line,) = differences(text + "a" + text, text + "b" + text, "note")
    assert "xa" in line
    assert "xb" in line
    assert len(line) < 220
    layers = [{"width": 100 + i, "kind": "dense"} for i in range(50)]
    other = [dict(layer) for layer in layers]
    other[31]["width"] = 7
    assert list(differences(layers, other, "net")) == ["net[31].width was 131 and is now 7"]
    (line,) = differences(layers, layers[:-1], "net")
    assert "149" in line
    (line,) = differences("y" * 100, "y" * 120, "note")
    assert line.count("...") >= 2
