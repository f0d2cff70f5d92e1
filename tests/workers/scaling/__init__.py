"""Instances that come and go."""
