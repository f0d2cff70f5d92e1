"""Pipelines: models, built-in steps and code of an author in a graph that answers as one model."""
