"""Mutated requests by the million: what is mutated, how, and what must hold meanwhile."""
