"""Reading ``key=value`` into a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from studies._errors import StudyError
from studies._settings import parse, setting, show, table


@dataclass(frozen=True)
class Config:
    """One field of every kind."""

    steps: int = setting(100, "updates")
    lr: float = setting(0.1, "step size")
    shuffle: bool = setting(True, "whether to shuffle")
    title: str = setting("mine", "name of the figure")
    widths: tuple[int, ...] = setting((16, 256), "widths")
    kind: Literal["adam", "sgd"] = setting("adam", "optimizer")
    limit: float | None = setting(None, "largest norm")


def test_no_words_give_the_defaults():
    assert parse(Config, []) == Config()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("steps=300", 300),
        ("lr=1e-3", 1e-3),
        ("lr=2", 2.0),
        ("shuffle=no", False),
        ("shuffle=True", True),
        ("title=a=b", "a=b"),
        ("title=", ""),
        ("widths=8", (8,)),
        ("widths=8,16,32", (8, 16, 32)),
        ("widths=(8, 16)", (8, 16)),
        ("kind=sgd", "sgd"),
        ("limit=0.5", 0.5),
        ("limit=none", None),
    ],
)
def test_values_are_read_by_the_type_of_their_field(word, value):
    found = getattr(parse(Config, [word]), word.partition("=")[0])
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["step=3"], "Unknown setting 'step'; expected one of steps, lr, shuffle, title, widths"),
        (["step=3"], "Did you mean 'steps'?"),
        (["steps"], "expected KEY=VALUE"),
        (["steps=1", "steps=2"], "given twice"),
        (["steps=1.5"], "steps='1.5' does not fit; expected a whole number."),
        (["steps="], "expected a whole number"),
        (["lr=fast"], "expected a number"),
        (["shuffle=maybe"], "expected true or false"),
        (["widths=8,x"], "expected a whole number, or several with commas between"),
        (["kind=lion"], "expected one of adam, sgd"),
        (["limit=big"], "expected a number, or none"),
    ],
)
def test_bad_words_are_answered(words, part):
    with pytest.raises(StudyError) as caught:
        parse(Config, words)
    assert part in str(caught.value)


def test_table_lists_every_setting_in_a_form_that_can_be_read_back():
    lines = table(Config).splitlines()
    assert len(lines) == 7
    words = [line.split()[0] for line in lines]
    assert parse(Config, words) == Config()
    assert "widths=16,256" in words
    assert lines[1].endswith("step size")


def test_shown_values_read_back():
    assert (show(None), show(False), show((1, 2)), show(0.1)) == ("none", "false", "1,2", "0.1")
