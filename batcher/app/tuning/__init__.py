"""`batcher tune MODEL`: finds the settings of a model for its user's load, and proves them.

    subject, user_load            what is tuned, and for whom
        ▼
    loaded_model ──► curve        l(b): seconds of a batch by its rows, on the model itself
        ▼
    choosing                      simulates settings by `batcher simulate`, and ranks them
        ▼
    child_server, sending         the present settings and the best two, under real load
        ▼
    verdict                       keeps the present settings unless others are better by more than
        ▼                         the noise
    reasons, report, picture      settings with a reason for each, a table, a chart

`tuning` goes through these steps within a time (`time_box`), and `command` reads the words of the
command line. Nothing here decides about a batch: simulation and servers run the server's own code.
"""
