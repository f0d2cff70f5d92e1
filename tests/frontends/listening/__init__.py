"""Tests of `batcher/frontends/listening`."""
