"""Tests of `batcher/frontends/web/http11`."""
