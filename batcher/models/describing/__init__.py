"""What a single file says of the model in it: everything that `model.yaml` would say.

    net.onnx      names, dtypes and shapes stand in the graph
    net.pt2       names, dtypes and shapes of the inputs stand in the program; the outputs show when
                  it runs
    net.pt        TorchScript: the names of the inputs stand in the archive; dtypes and shapes are
                  declared, or an example shows them
    model.py      a class, module or function: declared by `@batcher.model`, by annotations, or an
                  example shows the inputs; the outputs are declared, or show when it runs

What nobody says is asked for, never guessed: the error shows what to write. Nothing waits for the
first request to learn the inputs. Until that request came the server could not be ready honestly,
no page could say what it takes, and the first stranger would decide what the next ones may send.

Code of the model runs in a process of its own (`child.py`), which ends afterwards: neither its
modules nor its memory stay, and a file that crashes harms nobody.
"""
