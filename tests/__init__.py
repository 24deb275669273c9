"""LabLink's tests: real PostgreSQL, real processes, real browser."""
