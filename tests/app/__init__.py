"""Tests of `batcher/app`."""
