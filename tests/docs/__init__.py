"""What docs/ says is compared with what it is about."""
