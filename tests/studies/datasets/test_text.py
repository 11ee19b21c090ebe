"""Text: every character in its place, and tags that Python's own tokeniser gives."""

from __future__ import annotations

import ast
import hashlib
import platform

import numpy as np
import pytest

from studies._errors import StudyError
from studies.datasets import _text, manual, source_code
from studies.datasets._text import ALPHABET, KINDS, encode, tags


def test_the_alphabet_has_line_breaks_and_printable_ascii():
    assert len(ALPHABET) == 97 == len(set(ALPHABET))
    assert {chr(i) for i in range(32, 127)} | {"\n"} == set(ALPHABET[1:])


def test_unknown_characters_are_the_first():
    np.testing.assert_array_equal(encode("a“b"), [ALPHABET.index("a"), 0, ALPHABET.index("b")])


@pytest.mark.skipif(platform.python_version() != "3.11.7", reason="other versions, other text")
def test_the_texts_are_those_of_this_version_of_python():
    for texts, size, digest in (
        (_text._chapters(), 464970, "37d06970fc926e60"),
        (_text._modules(), 1793105, "062643cbce0353e3"),
    ):
        whole = "".join(texts)
        assert len(whole) == size
        assert hashlib.sha256(whole.encode()).hexdigest()[:16] == digest


def test_the_next_character_is_the_target():
    data = manual(window=50)
    assert data.x_train.shape == data.y_train.shape
    np.testing.assert_array_equal(data.x_train[:, 1:], data.y_train[:, :-1])
    assert data.x_train.size + data.x_test.size > 400_000
    assert data.x_train.max() < len(data.alphabet)
    # almost everything is in the alphabet
    assert (data.x_train == 0).mean() < 5e-3


def test_windows_are_pieces_of_chapters_that_are_on_one_side():
    data = manual(window=200)
    chapters = ["".join(c if c in ALPHABET else ALPHABET[0] for c in t) for t in _text._chapters()]
    for x in data.x_test[:20]:
        piece = "".join(ALPHABET[i] for i in x)
        assert any(piece in chapter for chapter in chapters)
    train = {row.tobytes() for row in data.x_train}
    assert not any(row.tobytes() in train for row in data.x_test)


def test_tags_say_what_a_character_belongs_to():
    source = 'if x1 == 0x1f:  # no\n    return "a\nb"\n'.replace('"a\nb"', '"""a\nb"""')
    found = [KINDS[k] for k in tags(source)]
    spelt = dict(zip(KINDS, ".nk1s#o", strict=True))
    assert "".join(spelt[kind] for kind in found) == (
        "kk.nn.oo.1111o..####." + "....kkkkkk.sssssssss."
    )


def test_tags_of_the_modules_agree_with_the_syntax_tree():
    """Every name, number and keyword that the parser sees at a place is tagged so."""
    source = next(text for text in _text._modules() if text.isascii() and len(text) > 20_000)
    found = tags(source)
    lines = source.splitlines(keepends=True)
    starts = np.cumsum([0, *map(len, lines)])
    seen = 0
    tree = ast.parse(source)
    # to the tokeniser an f-string is a string with all that is in it
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.JoinedStr) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        kind = {ast.Name: "name", ast.Return: "keyword", ast.While: "keyword"}.get(type(node))
        if isinstance(node, ast.Constant) and type(node.value) in (int, str):
            kind = "number" if type(node.value) is int else "string"
        if kind is None:
            continue
        at = starts[node.lineno - 1] + node.col_offset
        assert KINDS[found[at]] == kind
        seen += 1
    assert seen > 500


def test_source_code_has_a_tag_for_each_character():
    data = source_code(window=32)
    assert data.x_train.shape == data.y_train.shape
    assert data.kinds == KINDS
    share = np.bincount(data.y_train.ravel(), minlength=len(KINDS)) / data.y_train.size
    assert (share > 0.002).all()
    # white space is tagged as such, or inside a string or comment
    blank = data.x_train == ALPHABET.index(" ")
    assert set(np.unique(data.y_train[blank])) <= {
        KINDS.index(k) for k in ("space", "string", "comment")
    }


def test_the_seed_decides_the_split():
    np.testing.assert_array_equal(manual(seed=1).x_test, manual(seed=1).x_test)
    assert not np.array_equal(manual(seed=1).x_test[:9], manual(seed=2).x_test[:9])


@pytest.mark.parametrize(
    ("settings", "part"),
    [({"window": 1}, "expected at least 2"), ({"test_fraction": 0.001}, "holds out 0 of")],
)
def test_impossible_settings_are_refused(settings, part):
    with pytest.raises(StudyError, match=part):
        manual(**settings)
