"""``python -m tests.faults``: write the fault matrix into its page, ``tests/faults/README.md``."""

from tests.faults import ROWS
from tests.faults.table import PAGE, write

write(ROWS)
print(f"{len(ROWS)} rows are in {PAGE}")
