"""Tests of `batcher/models/pytorch`."""
