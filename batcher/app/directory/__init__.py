"""`batcher directory`: a tiny registry of our own, for those who have no other."""
