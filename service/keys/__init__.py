"""The keys that are known, and how often each may be used."""
