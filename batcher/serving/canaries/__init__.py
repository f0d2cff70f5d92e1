"""Canaries: versions that are tried on some requests, and taken back by themselves."""
