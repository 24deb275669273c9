"""LabLink on one machine: its own PostgreSQL, the service and real clients, under one directory."""
