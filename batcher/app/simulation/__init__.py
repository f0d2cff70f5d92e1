"""`batcher simulate`: how the server's own batching does under a load, without a server.

    loads, distributions  ──►  clients  ──►  simulation  ──►  record, result
    costs                 ──►  devices  ──┘   │
    candidates, comparisons  ──►  policy  ──┘  └─  events (time), loop (cores)

`scenario` says what is simulated, and `simulate` runs one policy in it. Texts of the command line
are read by `read_...` functions beside what they read, with `reading` for numbers and times.
"""
