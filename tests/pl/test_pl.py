import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from fedscgen.pl import (
    LABEL_COLOURS,
    SITE_COLOURS,
    make_marks,
    place_badges,
    scatter_png,
    to_picture,
    umap_layout,
)

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def pixels(png):
    return imread(io.BytesIO(png))  # (height, width, RGBA)


def colour_at(image, position):
    left, top = to_picture(position)
    height, width = image.shape[:2]
    return image[round(top / 100 * (height - 1)), round(left / 100 * (width - 1))]


def test_thirty_types_have_marks_of_their_own():
    assert len({(mark.colour, mark.marker) for mark in make_marks(30, LABEL_COLOURS)}) == 30
    assert len({(mark.colour, mark.marker) for mark in make_marks(30, SITE_COLOURS)}) == 30
    assert {mark.marker for mark in make_marks(10, LABEL_COLOURS)} == {"o"}


def test_layout_keeps_groups_together_and_repeats_itself():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 30)
    embedding = 30 * np.eye(3)[groups] + rng.normal(size=(90, 3))
    layout = umap_layout(embedding, seed=0)
    assert layout.min() == 0
    assert layout.max() == 1
    centres = np.stack([layout[groups == group].mean(axis=0) for group in range(3)])
    nearest = np.linalg.norm(layout[:, None] - centres[None], axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, groups)
    np.testing.assert_array_equal(umap_layout(embedding, seed=0), layout)


@pytest.mark.parametrize(
    "embedding",
    [np.random.default_rng(0).normal(size=(3, 1)), np.ones((40, 5)), np.random.default_rng(0).normal(size=(40, 1))],
    ids=["three cells", "all alike", "one dimension"],
)
def test_layout_of_degenerate_embeddings_is_finite(embedding):
    layout = umap_layout(embedding)
    assert layout.shape == (len(embedding), 2)
    assert np.isfinite(layout).all()


def test_dots_lie_where_their_cells_are_in_the_colour_of_their_group():
    palette = make_marks(4, SITE_COLOURS)
    image = pixels(scatter_png(CORNERS, np.arange(4), palette))
    assert image.shape == (800, 800, 4)
    for position, mark in zip(CORNERS, palette, strict=True):
        shown, wanted = colour_at(image, position), mpl.colors.to_rgb(mark.colour)
        np.testing.assert_allclose(shown[:3], wanted, atol=0.02)
        assert shown[3] > 0.8
    assert colour_at(image, np.array([0.5, 0.5]))[3] == 0  # the ground is transparent


def test_pictures_ignore_the_user_s_style_and_leave_it_alone():
    palette = make_marks(1, SITE_COLOURS)
    plain = scatter_png(CORNERS, np.zeros(4, dtype=int), palette)
    style = {"savefig.bbox": "tight", "savefig.dpi": 30, "axes.facecolor": "red", "font.size": 30, "lines.color": "red"}
    with mpl.rc_context(style):
        before = dict(mpl.rcParams)
        assert scatter_png(CORNERS, np.zeros(4, dtype=int), palette) == plain
        assert dict(mpl.rcParams) == before


def test_no_picture_goes_through_pyplot():
    import matplotlib.pyplot as plt

    backend, open_figures = mpl.get_backend(), plt.get_fignums()
    scatter_png(CORNERS, np.zeros(4, dtype=int), make_marks(1, SITE_COLOURS))
    assert plt.get_fignums() == open_figures
    assert mpl.get_backend() == backend


def test_badges_keep_off_each_other_and_near_their_group():
    rng = np.random.default_rng(0)
    layout = 0.5 + 0.01 * rng.normal(size=(60, 2))
    badges = place_badges(layout, np.repeat(np.arange(6), 10), 6)
    gaps = np.abs(badges[:, None] - badges[None]).max(axis=2)[np.triu_indices(6, k=1)]
    assert gaps.min() >= 0.042
    assert np.linalg.norm(badges - 0.5, axis=1).max() < 0.15


def test_a_badge_stands_beside_a_group_that_it_would_hide():
    layout = 0.5 + 0.003 * np.random.default_rng(0).normal(size=(10, 2))
    (badge,) = place_badges(layout, np.zeros(10, dtype=int), 1)
    assert np.abs(layout - badge).max(axis=1).min() > 0.02
