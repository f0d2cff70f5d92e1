"""Batch jobs: all rows of a file through a model, in order, and so that a killed job goes on."""
