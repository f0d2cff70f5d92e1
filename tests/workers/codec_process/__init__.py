"""Tests of `batcher/workers/codec_process`."""
