"""Rows of enlarged crops."""

import numpy as np

from mambair.imaging.panels import busiest_crop, panel_row, stack_rows


def test_the_busiest_crop_is_where_the_detail_is() -> None:
    image = np.full((40, 60, 3), 128, np.uint8)
    image[20:36, 40:56] = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
    top, left = busiest_crop(image, 16, 4)
    assert (top, left) == (16, 40) or (top, left) == (24, 40)
    assert busiest_crop(image[:16, :16], 16, 4) == (0, 0)
    # What lies at the border has no neighbour beyond it.
    assert busiest_crop(np.full((32, 32, 3), 255, np.uint8), 16, 2) == (0, 0)


def test_panels_show_the_same_window_enlarged() -> None:
    first = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    row = np.asarray(panel_row({"a": first, "b": 255 - first}, (2, 4), 4, 3))
    panels = [row[8 : 8 + 12, 8 + 20 * column : 8 + 20 * column + 12][::3, ::3] for column in (0, 1)]
    assert (panels[0] == first[2:6, 4:8]).all() and (panels[1] == 255 - first[2:6, 4:8]).all()
    one, two = panel_row({"a": first}, (0, 0), 4, 3), panel_row({"a": first, "b": first}, (0, 0), 4, 3)
    assert stack_rows([one, two]).shape == (one.height + two.height, two.width, 3)
