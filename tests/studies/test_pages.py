"""Parts of pages are written between their marks, and nothing else changes."""

import pytest

from studies import _pages
from studies._errors import StudyError

PAGE = """# Title

Before.

<!-- one -->

old

<!-- /one -->

Between.

<!-- two -->
<!-- /two -->
"""


def test_parts_replace_what_is_between_their_marks():
    page = _pages.filled(PAGE, {"one": "new\n", "two": "also"})
    assert "old" not in page
    assert "<!-- one -->\n\nnew\n\n<!-- /one -->" in page
    assert "<!-- two -->\n\nalso\n\n<!-- /two -->" in page
    assert page.startswith("# Title\n\nBefore.\n")
    assert "\n\nBetween.\n\n" in page
    assert _pages.filled(page, {"one": "new", "two": "also"}) == page


@pytest.mark.parametrize("parts", [{"one": ""}, {"one": "", "two": "", "three": ""}])
def test_marks_and_parts_have_to_fit(parts):
    with pytest.raises(StudyError, match="marks for"):
        _pages.filled(PAGE, parts)


def test_folded_text_is_indented_and_blank_lines_stay_blank():
    assert _pages.folded("More", "a\n\nb") == '??? note "More"\n\n    a\n\n    b'
