"""Which job goes to which backend, and when."""
