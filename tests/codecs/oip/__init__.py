"""Tests of `batcher/codecs/oip`."""
