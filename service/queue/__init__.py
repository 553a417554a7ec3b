"""Whose turn it is: the least served goes first.

For a runner, the owner with the smallest ``served − boost[its highest waiting priority]``; among equals the one that
has waited longest since its last claim, or since it began to wait. Within the owner, by the same rule, one of its
priorities; within that, the oldest job. ``served`` is backend time divided by the owner's weight, charged with the
expected cost at the claim and corrected at the end. Who begins to wait starts at the largest value that any claim has
reached: nobody saves up credit while away, and nobody is punished for having been alone.

That is start-time fair queueing (Goyal, Vin and Cheng, 1996) with bounded leads for priorities. Times are milliseconds.
"""

from service.queue.order import Order
from service.queue.order_rows import RunnerRow, ShareRow

__all__ = ["Order", "RunnerRow", "ShareRow"]
