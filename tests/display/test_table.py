"""One table in text and HTML: aligned, escaped, readable without colours."""

from __future__ import annotations

import pytest

from fluobook.display.table import GLYPHS, Cell, Table


def test_columns_are_aligned_and_no_line_ends_in_blanks():
    text = Table("nodes", ["name", "state"], [["a", "x"], ["longer", ""]], note="2 nodes").text()
    assert text.splitlines() == ["nodes", "name    state", "a       x", "longer", "2 nodes"]


@pytest.mark.parametrize("tone", GLYPHS)
def test_a_state_has_a_glyph_and_its_word(tone):
    table = Table("t", ["state"], [[Cell("word", tone)]])
    assert f"{GLYPHS[tone]} word" in table.text()
    assert f"{GLYPHS[tone]} word" in table.html()


def test_html_is_escaped():
    html = Table("<b>", ["<i>"], [["<script>alert(1)</script>", Cell("<u>", "ok")]], note="<p>\nsecond").html()
    for tag in ("<b>", "<i>", "<script>", "<u>"):
        assert tag not in html
    assert "&lt;p&gt;<br>second" in html


def test_a_long_word_may_break_on_a_narrow_page_and_a_short_one_does_not():
    html = Table("t", ["n", "m", "o"], [["a" * 40, "b" * 20, "&" * 24]]).html()
    assert f"<td>{'a' * 16}<wbr>{'a' * 16}<wbr>{'a' * 8}</td>" in html
    assert f"<td>{'b' * 20}</td>" in html
    assert f"<td>{'&amp;' * 16}<wbr>{'&amp;' * 8}</td>" in html


def test_a_table_without_heads_has_no_empty_line():
    table = Table("t", ["", ""], [["label", "text"]])
    assert table.text().splitlines() == ["t", "label  text"]
    assert "<thead>" not in table.html()


def test_more_rows_than_the_limit_are_counted():
    table = Table("t", ["n"], [[n] for n in range(105)])
    assert "+ 5 more" in table.text()
    assert "+ 5 more" in table.html()
    assert "104" not in table.text()


def test_notebooks_get_text_and_html():
    bundle = Table("t", ["n"], [[1]])._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert bundle["text/plain"] == str(Table("t", ["n"], [[1]]))


def test_html_takes_its_colours_from_the_theme_and_can_be_read_aloud():
    html = Table("t", ["n"], [[1]]).html()
    assert "--jp-content-font-color1" in html
    assert "<caption>t</caption>" in html
    assert '<th scope="col">n</th>' in html
