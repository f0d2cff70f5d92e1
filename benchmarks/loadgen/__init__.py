"""The parts of the load generator, in the order of the data: options, schedule, tally, traffic, client, report."""
