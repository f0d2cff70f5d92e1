"""Bytes to inputs and results to bytes: one file for each format, pure functions, no I/O.

`formats` lists them, `negotiation` chooses among them by `Content-Type` and `Accept`,
`content_coding` undoes gzip and deflate. Every codec raises `DecodingError` or `InvalidInput` with
what was expected and what came.
"""
