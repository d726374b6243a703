"""The plans of docs/scale.md are those that its commands print."""

import pytest

from tests.docs.scale import PAGE, commands, rewritten


@pytest.mark.slow
def test_the_page_shows_what_its_commands_print():
    page = PAGE.read_text()
    assert len(commands(page)) == 2
    assert rewritten(page) == page, "python -m tests.docs.scale writes it anew"
