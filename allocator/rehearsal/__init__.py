"""A workshop before it happens: the real rules, on a scratch database whose clock is set.

People come, machines boot, leases end and machines die at moments that chance chooses, the same for the same seed.
What becomes of it the database says: every request, claim, wipe and sweep is the one that an allocator would make.
"""
