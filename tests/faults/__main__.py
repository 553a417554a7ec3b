"""``python -m tests.faults``: write the fault matrix into the README."""

from tests.faults import ROWS
from tests.faults.table import README, write

write(ROWS)
print(f"{len(ROWS)} rows are in {README}")
