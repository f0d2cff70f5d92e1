"""Instances of a model that come and go with its load."""
