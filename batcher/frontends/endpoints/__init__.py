"""What each route does, as plain functions of a call.

Nothing here knows a web framework or a connection.
"""
