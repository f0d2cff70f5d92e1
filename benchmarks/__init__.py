"""Measurements of the server: load, ceilings, peers."""
