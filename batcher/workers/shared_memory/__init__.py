"""Batches in memory that a parent and its child share."""
