"""Servers that share answers through a real Redis."""
