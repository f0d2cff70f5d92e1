"""Tests of `batcher/frontends`."""
