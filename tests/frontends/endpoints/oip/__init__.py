"""Tests of `batcher/frontends/endpoints/oip`."""
