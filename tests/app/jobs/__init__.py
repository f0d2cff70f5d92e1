"""Tests of `batcher/app/jobs`."""
