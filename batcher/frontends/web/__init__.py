"""HTTP/1.1: a fast connection for inference, Klein for everything else, on one port.

Importing `web.app` imports Klein, which installs the default reactor unless another one is
installed already.
"""
