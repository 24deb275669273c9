"""Measures LabLink on this machine beside the naive way of doing the same: `make bench`."""
