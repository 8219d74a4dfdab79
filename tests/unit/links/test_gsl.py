from __future__ import annotations

import numpy as np
import pytest

from controller.links.gsl import Assignment, PassTable, assign, passes


def table(*rows: tuple[int, int, int]) -> PassTable:
    """From rows of (satellite, first step, end step), setting half a step before the end."""
    array = np.array(sorted(rows), np.int64).reshape(-1, 3)
    return PassTable(array[:, 0], array[:, 1], array[:, 2], array[:, 2].astype(np.float64) - 0.5)


def test_passes_are_runs_above_the_mask_and_set_between_the_samples() -> None:
    """Every run of samples at or above the mask is a pass; its end is interpolated, or the horizon of the search."""
    elevation_deg = np.array([[11.0, 8.0, 10.0, 12.0, 8.0], [0.0, 0.0, 0.0, 0.0, 0.0], [9.0, 9.0, 9.0, 20.0, 30.0]])
    found = passes(elevation_deg, 10.0, np.array([0.0, 1.0, 2.0, 3.0, 5.0]))
    assert found.satellite.tolist() == [0, 0, 2]
    assert found.first_step.tolist() == [0, 2, 3]
    assert found.end_step.tolist() == [1, 4, 5]
    assert found.set_s == pytest.approx([1.0 / 3.0, 4.0, 5.0])


def test_a_ground_node_keeps_its_satellite_until_it_sets_then_takes_the_one_that_stays_longest() -> None:
    """A satellite that would stay longer does not end a link; when it ends, the longest of the visible ones follows."""
    links = assign([table((0, 0, 4), (1, 1, 6), (2, 2, 9), (3, 4, 7))], [1], [1] * 4, 8)
    assert links == [Assignment(0, 0, 0, 0, 0, 4), Assignment(0, 2, 0, 0, 4, 8)]


def test_equals_are_taken_in_the_order_of_nodes() -> None:
    """Two satellites that set at the same instant: the first one."""
    assert assign([table((2, 0, 5), (1, 0, 5))], [1], [1] * 3, 5) == [Assignment(0, 1, 0, 0, 0, 5)]


def test_antennas_take_different_satellites() -> None:
    """Two antennas hold two satellites; the lowest free one takes the next."""
    links = assign([table((0, 0, 3), (1, 0, 5), (2, 2, 6))], [2], [4] * 3, 6)
    assert [(k.satellite, k.antenna, k.first_step, k.end_step) for k in links] == [
        (1, 0, 0, 5),
        (0, 1, 0, 3),
        (2, 1, 3, 6),
    ]


def test_a_satellite_serves_max_gsl_ground_nodes_through_its_lowest_free_ports() -> None:
    """The third ground node takes the second best satellite; a port that is given up is the next one's."""
    tables = [table((0, 0, 2)), table((0, 0, 9)), table((0, 0, 9), (1, 0, 4)), table((0, 2, 9))]
    links = assign(tables, [1] * 4, [2, 2], 6)
    assert [(k.ground, k.satellite, k.gsl_port, k.first_step, k.end_step) for k in links] == [
        (0, 0, 0, 0, 2),
        (1, 0, 1, 0, 6),
        (2, 1, 0, 0, 4),
        (3, 0, 0, 2, 6),
    ]


def test_a_satellite_without_ground_ports_serves_nobody() -> None:
    """max_gsl = 0 is a relay satellite."""
    assert assign([table((0, 0, 5))], [1], [0], 5) == []
