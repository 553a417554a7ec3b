"""How the columns of a table share a terminal's width."""

from __future__ import annotations

import pytest

from corral.cli.terminal_table import fitted


@pytest.mark.parametrize(
    ("natural", "room", "right"),
    [
        ([10, 10], 80, [10, 10]),
        ([10, 90], 80, [10, 70]),
        ([10, 40, 50], 80, [10, 35, 35]),
        ([36, 9, 200, 8], 80, [36, 9, 27, 8]),
        ([90, 20], 80, [90, 8]),
        ([90], 80, [90]),
        ([36, 4, 30], 40, [36, 4, 8]),
    ],
)
def test_the_widest_give_way_and_the_first_is_whole(natural: list[int], room: int, right: list[int]) -> None:
    assert fitted(natural, room) == right
