"""Faults under load: a real server, and an account of every request."""
