"""Tests of trials of new versions."""
