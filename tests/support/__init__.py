"""What tests stand on: a server, a fresh database per test, machines enrolled in it."""
