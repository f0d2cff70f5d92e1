"""Tests of `batcher/codecs/formats`."""
