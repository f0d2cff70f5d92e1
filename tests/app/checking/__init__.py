"""Tests of `batcher/app/checking`."""
