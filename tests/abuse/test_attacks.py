"""While somebody attacks the service, another owner is answered; the attack is refused, costs a bounded amount of
memory, and reaches no backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.abuse import MEBIBYTE, Attacked, Waits, attacked_service
from tests.support.attacks import ATTACKS, Attack
from tests.support.raw_client import Answer

MOST_MEMORY = 150 * MEBIBYTE
MOST_MEMORY_LEFT = 30 * MEBIBYTE
MOST_WAIT_SECONDS = 0.25
"""Beyond what the victim waits where nobody attacks."""
AFTER_SECONDS = 10
IDLE_ROUNDS = 30
RUNS = 3
CALLS_OF_A_ROUND = 2
"""Of the victim's, at the backend."""

every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


def check_refused(attack: Attack, answers: list[Answer | None]) -> None:
    statuses = [answer.status for answer in answers if answer is not None]
    assert set(statuses) <= attack.statuses, [answer for answer in answers if answer is not None]


@every_attack
async def test_another_owner_is_answered_before_an_attack_ends(attack: Attack, tmp_path: Path) -> None:
    async with attacked_service(tmp_path, rows=attack.rows // 100) as attacked:
        await attacked.victim.is_served()
        calls = await attacked.calls_at_the_backend()
        before = attacked.forget_peak()
        attackers = await attacked.attackers(attack.blows(attacked))
        # No attacker has sent its end by then.
        await attacked.victim.is_served()
        answers = await attacked.end(attackers)
        await attacked.victim.is_served()
        check_refused(attack, answers)
        assert await attacked.calls_at_the_backend() - calls == 2 * CALLS_OF_A_ROUND
        assert (attacked.peak() - before) // MEBIBYTE <= MOST_MEMORY // MEBIBYTE
        assert "Traceback" not in attacked.said()


async def waits_under(attacked: Attacked, attack: Attack) -> Waits:
    """The longest that the victim waits for each of its calls while the attack goes on."""
    ended = asyncio.Event()
    async with asyncio.TaskGroup() as both:
        serving = both.create_task(attacked.victim.served_until(ended))
        attackers = await attacked.attackers(attack.blows(attacked))
        await attacked.victim.is_served()
        answers = await attacked.end(attackers)
        ended.set()
    check_refused(attack, answers)
    return longest_of(serving.result())


def longest_of(waits: Sequence[Waits]) -> Waits:
    return Waits(*map(max, zip(*waits, strict=True)))


@pytest.mark.long
@every_attack
async def test_an_attack_makes_nobody_else_wait(attack: Attack, tmp_path: Path) -> None:
    async with attacked_service(tmp_path, attack.rows) as attacked:
        usual = longest_of([await attacked.victim.is_served() for _ in range(IDLE_ROUNDS)])
        before = attacked.forget_peak()
        runs = [await waits_under(attacked, attack) for _ in range(RUNS)]
        peak = attacked.peak()
        for call in Waits._fields:
            # What the service does is there in each run; what a neighbour does is not.
            wait = min(getattr(waits, call) for waits in runs)
            most = getattr(usual, call) + MOST_WAIT_SECONDS
            assert wait <= most, f"{call}: {wait:.3f} s in place of {most:.3f} s"
        assert (peak - before) // MEBIBYTE <= MOST_MEMORY // MEBIBYTE
        await asyncio.sleep(AFTER_SECONDS)
        assert (attacked.resident() - before) // MEBIBYTE <= MOST_MEMORY_LEFT // MEBIBYTE
