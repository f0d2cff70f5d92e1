#!/usr/bin/env python3
"""Run the server: `python serve.py [-c config.yaml] [--port 8080]`; the same as `batcher serve`."""

from batcher.app.entry import serve

if __name__ == "__main__":
    serve()
