"""Model archives of TorchServe: `.mar`, a zip of weights, code and a manifest.

    archive       extracts an archive into a folder of its own, and refuses what would leave it
    manifest      what `MAR-INF/MANIFEST.json` says
    context       the object that handlers get: properties, manifest, headers, statuses
    transforms    how default handlers prepare pictures
    handlers      the default handlers: base_handler, image_classifier, object_detector, …
    modules       the names of all that under `ts`, by which handlers import it
    bodies        the body of a request becomes what a handler gets, and back
    model         an archive as a model that batches

TorchServe itself is not needed. What handlers may rely on is written anew here, after its
documentation: so an archive runs without Java, and many requests make one call of the handler.
"""
