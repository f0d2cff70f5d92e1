"""Tests of the ZeroMQ front, without the library: a stand-in has its place."""
