"""What tests stand on: a server, a fresh database per test, machines enrolled in it."""

LIMIT_SECONDS = 120.0
"""How long a test waits for what must happen: long after the slowest computer has done it, so no result hangs on it."""
