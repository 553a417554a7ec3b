"""Whose turn it is: the owner that was served least goes first.

On each model the next owner is the one with the smallest ``served − boost[its highest waiting priority]``. Among
equals it is the one that has waited longest since its last claim, or since it began to wait. The same rule then chooses
one of the owner's priorities, and of that the oldest job is next. ``served`` is backend time divided by the owner's
weight: the expected cost is charged at the claim, and corrected at the end; a load is charged to who alone wanted it.
An owner that begins to wait starts at the largest value that any claim has reached: nobody saves up credit while away,
and nobody pays for having been alone. While jobs wait for several runners of the model, it starts no further back than
one job behind whoever is next: what others have reached they may owe to what was loaded.

That is start-time fair queueing (Goyal, Vin and Cheng, 1996) with bounded leads for priorities. Times are milliseconds.
"""

from service.queue.order import Order
from service.queue.order_rows import ModelRow, ShareRow

__all__ = ["ModelRow", "Order", "ShareRow"]
