"""Tables in Markdown: numbers on the right, text that does nothing, and never more rows than a page takes."""

from harness.dataset.release.markdown import link, table


def test_columns_of_numbers_stand_right_and_others_left() -> None:
    lines = table(("a", "b", "c", "d"), [("x", 1, None, None), ("y", 1234567, None, 3)]).splitlines()

    assert lines == ["| a | b | c | d |", "|---|---:|---|---:|", "| x | 1 | – | – |", "| y | 1,234,567 | – | 3 |"]


def test_a_long_table_is_cut_and_says_so() -> None:
    lines = table(("a",), [(str(number),) for number in range(12)], most=10).splitlines()

    assert len(lines) == 2 + 10 + 2
    assert lines[-1].startswith("2 more rows are left out here")


def test_text_cannot_leave_its_cell_nor_become_a_link() -> None:
    text = table(("a",), [("x | y\n| z | [l](http://e.org)",)])

    assert len(text.splitlines()) == 3
    assert r"x \| y \| z \| \[l\](http\://e.org)" in text
    assert link("https://e.org/>x") == r"https\://e.org/\>x"
