"""LabLink on one machine: its own PostgreSQL, the service and real clients, under one directory."""


class UpFailed(Exception):
    """What `lablink up` consists of cannot run here; the message says why and what to do."""
