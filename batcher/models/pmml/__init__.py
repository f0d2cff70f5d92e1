"""PMML on arrays: each part of a file becomes a function of whole columns, so that rows batch.

    frame         the columns of a batch by their names; derived fields come when asked for
    expressions   derived fields: arithmetic, norms, bins, maps
    predicates    conditions of trees, rules and segments, with a third value for what is missing
    scoring       what a model gives: numbers, or probabilities of classes
    trees, linear, layers, vectors, distances, counts, rules    the kinds of models
    segments      models of models: forests, boosting, chains
    model         a file as a model that is served

Written here and not taken from a library: sklearn-pmml-model leaves out transformations, targets
and segments, and makes estimators of scikit-learn, which would have to be installed as well; JPMML
and pypmml need Java, and score a row after the other.
"""
