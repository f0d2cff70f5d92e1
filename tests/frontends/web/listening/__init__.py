"""Tests of `batcher/frontends/web/listening`."""
