"""Tests of `batcher/codecs/row_files`."""
