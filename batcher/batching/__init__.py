"""When a batch is sent, and with what: from a queued request to its answer.

`scheduler` ties the parts together and says what each of them does. Nothing here starts a thread or
does I/O, and time is an argument everywhere but in `scheduler` and `completion`.
"""
