"""Tests of `batcher/frontends/endpoints/openapi`."""
