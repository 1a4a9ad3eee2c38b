import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas
from matplotlib.image import imread

from fedscgen.benchmark.report._figures import (
    Dot,
    Figure,
    Panel,
    draw_boxes,
    draw_dots,
    draw_heat_map,
    inline_panels,
    panel_height,
    save_panels,
    wrap,
)
from fedscgen.pl import SITE_COLOURS, make_marks

FIRST, SECOND = make_marks(2, SITE_COLOURS)


@pytest.fixture
def axes():
    return Canvas().add_subplot()


def luminance(colour):
    """Relative luminance, straight from its definition in WCAG 2."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_dots_lie_at_their_means_with_standard_deviations_as_whiskers(axes):
    draw_dots(axes, ["above", "below"], [Dot(0, FIRST, 0.4, 0.1), Dot(1, SECOND, 0.8, np.nan)])
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [tuple(np.ravel(dot.get_xydata())) for dot in dots] == [(0.4, 0), (0.8, 1)]
    (whisker,) = (bar for bars in axes.containers for bar in bars[2])
    np.testing.assert_allclose(whisker.get_segments()[0], [[0.3, 0], [0.5, 0]])
    assert axes.yaxis_inverted()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["above", "below"]


def test_dots_of_one_row_keep_apart_and_within_it():
    heights = [Dot(3, FIRST, 0.5, 0.1, lane, 4).height for lane in range(4)]
    assert np.diff(heights) == pytest.approx(0.175)
    assert np.mean(heights) == pytest.approx(3)
    assert max(heights) < 3.5


def test_axis_of_dots_shows_zero_where_asked_and_is_never_tiny(axes):
    draw_dots(axes, ["row"], [Dot(0, FIRST, 0.5, 0.001)])
    low, high = axes.get_xlim()
    assert high - low == pytest.approx(0.05)
    assert low < 0.5 < high
    other = Canvas().add_subplot()
    draw_dots(other, ["row"], [Dot(0, FIRST, 0.5, 0.001)], zero=True)
    assert other.get_xlim()[0] <= 0


def test_boxes_span_their_quantiles_on_an_axis_of_all_possible_values(axes):
    draw_boxes(axes, ["row"], [(0, FIRST, np.array([1.1, 1.5, 2.0, 2.5, 2.9]))], largest=3.0)
    (box,) = axes.patches
    assert box.get_path().get_extents().intervalx == pytest.approx([1.5, 2.5])
    low, high = axes.get_xlim()
    assert low < 1 < 1.1
    assert 3 < high < 3.1
    assert list(axes.get_xticks()) == [1, 2, 3]


def test_boxes_of_a_single_batch_have_an_axis(axes):
    draw_boxes(axes, ["row"], [(0, FIRST, np.ones(5))], largest=1.0)
    assert list(axes.get_xticks()) == [1]
    assert axes.get_xlim()[0] < 1 < axes.get_xlim()[1]


def test_heat_map_frames_the_best_and_leaves_gaps_for_what_is_missing(axes):
    values = np.array([[0.1, np.nan], [0.9, 0.5]])
    draw_heat_map(axes, values, ["1", "2"], ["1", "2"])
    frame = axes.patches[-1]
    assert (frame.get_x(), frame.get_y()) == (-0.5, 0.5)
    assert not frame.get_fill()
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (0, 0): "0.100",
        (1, 0): "–",
        (0, 1): "0.900",
        (1, 1): "0.500",
    }
    assert len(axes.patches) == 4


def test_numbers_in_a_heat_map_can_be_read_on_every_shade(axes):
    values = np.linspace(0, 1, 64).reshape(8, 8)
    draw_heat_map(axes, values, [str(i) for i in range(8)], [str(i) for i in range(8)])
    for cell, text in zip(axes.patches[:-1], axes.texts, strict=True):
        dark, bright = sorted((luminance(cell.get_facecolor()), luminance(text.get_color())))
        assert (bright + 0.05) / (dark + 0.05) > 4.5
    assert {text.get_color() for text in axes.texts} == {"#ffffff", "#000000"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("fedscgen-crypten", "fedscgen-crypten"),
        ("MouseHematopoieticStemProgenitorCells", "MouseHematopoietic\nStemProgenitorCells"),
        ("two\nlines", "two lines"),
        ("x" * 30, "x" * 18 + "…"),
        ("a word and another and yet another one more", "a word and another\nand yet another on…"),
        ("", ""),
    ],
)
def test_long_names_are_broken_and_cut(name, shown):
    assert wrap(name) == shown


def test_panels_grow_with_their_rows():
    assert panel_height(["a", "b"]) < panel_height(["a", "b", "c"]) < panel_height(["a", "b", "c"], lanes=3)
    assert panel_height(["a"]) < panel_height(["MouseHematopoieticStemProgenitorCells"])


def two_panels(title="$x^2$ <b>", row="$\\frac{1}$ & <i>"):
    def draw(axes):
        draw_dots(axes, [row], [Dot(0, FIRST, 0.5, 0.1)])

    panels = [Panel(title, "alt", draw, 1.0), Panel("other", "alt", draw, 1.0)]
    return Figure("figure", panels, 2, {"$a$": FIRST})


def test_panels_in_a_page_take_its_colour_and_show_names_as_they_are():
    first, second = inline_panels(two_panels())
    assert first.startswith("<svg viewBox=")
    assert "currentColor" in first
    assert "#010203" not in first
    assert "$\\frac{1}$ &amp; &lt;i&gt;" in first
    assert ">0.5</text>" in first
    ids = [{part.split('"')[0] for part in svg.split('id="')[1:]} for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_files_hold_all_panels_on_white(tmp_path):
    save_panels(two_panels(), tmp_path)
    picture = imread(tmp_path / "figure.png")
    assert picture.shape[1] == 2 * 400
    assert (picture[0, 0] == 1).all()
    for half in (picture[:, :400], picture[:, 400:]):
        assert np.isclose(half[..., :3], mpl.colors.to_rgb(FIRST.colour), atol=0.02).all(axis=2).sum() > 20
    assert "currentColor" not in (tmp_path / "figure.svg").read_text()
