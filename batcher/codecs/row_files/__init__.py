"""Files of many rows, read and written a portion at a time: what batch jobs take and give.

Nothing here opens a file. A reader gets an open one and keeps a bounded part of it in memory; a
writer gives bytes to append.
"""
