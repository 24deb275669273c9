"""Numbers over time as a picture of plain text."""

from allocator.cli.plot import plotted


def test_a_series_is_as_high_as_its_numbers_and_has_an_axis() -> None:
    assert plotted("waiting", [0, 1, 2, 4], 7200, width=4, height=2) == [
        "waiting",
        "4 │   █",
        "0 │ ▄██",
        "  └────",
        "   02 h",
    ]


def test_a_long_series_shows_the_highest_of_each_share_and_fits_a_terminal() -> None:
    series = [0] * 1000
    series[500] = 300
    lines = plotted("lent", series, 90)
    assert max(map(len, lines)) <= 80
    assert all(line.count("█") == 1 for line in lines[1:9])


def test_a_series_that_is_shorter_than_the_picture_is_stretched() -> None:
    assert plotted("waiting", [3, 3], 60, width=6, height=2)[1:3] == ["3 │██████", "0 │██████"]


def test_nothing_is_drawn_as_nothing() -> None:
    assert plotted("waiting", [0, 0], 60, width=6, height=2)[1:3] == ["1 │", "0 │"]
