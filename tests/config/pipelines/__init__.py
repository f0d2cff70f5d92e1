"""Tests of the steps in a `model.yaml`, and of the conditions of steps."""
