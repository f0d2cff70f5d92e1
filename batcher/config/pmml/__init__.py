"""PMML, models as XML: the file is read, and says which inputs and outputs the model has."""
