"""The parts of the load generator, in the order of the data.

Options, schedule, tally, traffic, client, report.
"""
