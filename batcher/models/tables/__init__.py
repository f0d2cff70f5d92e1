"""Models of tables: pickles of scikit-learn, and the own files of XGBoost and LightGBM.

A row is a row of the table. Clients send either all columns as one input, a row of numbers, or each
column as an input of its own, which may hold text (`columns.py`).
"""
