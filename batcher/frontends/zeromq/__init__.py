"""ZeroMQ in front of the models: one ROUTER socket on the reactor's loop.

`port` reads and writes the library's sockets, `messages` puts parts together, `peers` bounds what
each client may have, `tensors` and `calls` answer the two kinds of requests, and `front` wires
them. Only `port`, `curve` and `front` import the library.
"""
