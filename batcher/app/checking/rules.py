"""Every rule of the contract between a model and the server, with its reason and its remedy.

The texts are shown to authors of models by `batcher check --model`: first why the server needs the
rule, then how a model that breaks the rule is mended.
"""

from __future__ import annotations

from dataclasses import replace

from batcher.app.checking.contract import Finding, Rule

DEFINITION = Rule(
    "breach",
    "the server learns from model.yaml what the model is, takes and gives",
    "correct the line that is named",
)
FILE = Rule(
    "breach",
    "of one file without a model.yaml the server learns what the model takes and gives from the "
    "file itself, and from a trial run of its code",
    "correct the file where the reason names it; what the file does not say stands in its "
    "`@batcher.model(inputs=…, outputs=…)`, or in the model.yaml that "
    "`batcher init --from` writes",
)
FOLDER = Rule(
    "warning",
    "the server looks for versions in folders that are named by a number",
    "rename the folder to 1 within a folder that has the model's name",
)
SAMPLE = Rule(
    "breach",
    "`sample` is a request that the model is meant to answer; one that is refused here would be "
    "answered with 400",
    "write the sample as it would be posted to /predict, with the inputs that model.yaml declares",
)
LOAD = Rule(
    "breach",
    "a model that cannot be loaded answers 503, and under `strict_start` keeps the server from "
    "starting",
    "mend what the reason names; the model is loaded once, in a process that has only its folder "
    "and what is installed",
)
RAISES = Rule(
    "breach",
    "a batch has as many rows as happen to wait, from one to max_batch_size, and one that raises "
    "answers 500",
    "make predict work at any number of rows; if it ran out of memory, lower max_batch_size; "
    "if it cannot take such values, declare a `sample` that it can",
)
RAISES_ALWAYS = Rule(
    "breach",
    "each request would be answered with 500: predict raises at every number of rows, one row "
    "included",
    "mend what the error names: it is in the model's own code, or the rows are none that the model "
    "can take; then declare a `sample` that it can",
)
FAILED = Rule(
    "breach",
    "a model that answers no row has shown nothing: neither that it works, nor that it keeps the "
    "contract",
    "declare a `sample` that the model can answer, or mend what the error names",
)
FAILED_ROWS = Rule("note", "a row that fails by itself is answered with its own error")
MISSING = Rule(
    "breach",
    "each output of model.yaml is promised to clients by name",
    "return it under that name, or take it out of `outputs` in model.yaml",
)
ROWS = Rule(
    "breach",
    "row i of an output is handed to whoever sent row i of the input, so rows out must equal rows "
    "in",
    "keep the first axis of every output as long as that of the inputs; "
    "look for squeeze(), [0] and for sums or means over axis 0",
)
DTYPE = Rule(
    "breach",
    "clients read binary answers by the dtype that model.yaml promises",
    "convert the output in the model, or declare the dtype that it has",
)
SHAPE = Rule(
    "breach",
    "clients read answers by the shape that model.yaml promises; it is that of one row, without "
    "the batch axis",
    "reshape the output in the model, or declare the shape that it has, -1 where it is free",
)
MIXED = Rule(
    "breach",
    "row i of an output is handed to whoever sent row i of the input: clients would get each "
    "other's answers",
    "give the answers in the order of the inputs; look for sorting, sets and reversals that are "
    "not undone",
)
NEIGHBOURS = Rule(
    "breach",
    "a batch is made of the requests of strangers; an answer may depend on nothing but its own row",
    "look for softmax, mean or normalisation over axis 0, for BatchNorm in training mode (call "
    "eval()), "
    "and for padding without a mask",
)
PREPROCESS = Rule(
    "breach",
    "preprocess is given the inputs of one request, of any number of rows and read-only, "
    "and returns a mapping of name to array, all of the same number of rows",
    "copy before you write, and keep one row for each row in every array",
)
POSTPROCESS = Rule(
    "breach",
    "postprocess is given one request's rows of the outputs, and returns what model.yaml promises "
    "for as many rows, or for one row of each row of the request where preprocess made several",
    "keep one row for each row in every array, with the names, dtypes and shapes of `outputs`",
)
WARMUP = Rule(
    "breach",
    "before it is ready a model is run on rows of zeros (BYTES: empty texts); one that fails on "
    "them is not served",
    "make the model take rows of zeros, or set `warmup: false` for it",
)
LACKS = Rule(
    "breach",
    "a request may leave out what is `optional: true`; before it is ready a model is run without "
    "it, too, and one that fails then is not served",
    "give the code a default of its own, or the input a `default` in model.yaml; else leave "
    "`optional: true` out",
)
CHANGES = Rule(
    "warning",
    "a row that is sent again, or run again because another row of its batch failed, is expected "
    "to get the same answer; "
    "whether a row depends on its neighbours could not be checked",
    "if it is not meant, look for dropout in training mode (call eval()), unseeded random numbers, "
    "and state that is kept from batch to batch",
)
DRIFT = Rule(
    "warning",
    "other kernels at other batch sizes round differently, but this is more than rounding in "
    "float32 explains",
    "if it is not meant, look for quantisation with a scale over the whole batch, TF32 or half "
    "precision",
)
NON_FINITE = Rule(
    "warning",
    "JSON has no NaN or infinity, so such a number is answered as null",
    "look for divisions by zero, logarithms of zero and overflow in half precision",
)
EXTRA = Rule(
    "note",
    "the server drops what model.yaml does not promise",
    "declare it in `outputs` if clients should get it",
)
RAGGED = Rule(
    "note",
    "a client that sends several rows at once gets rows of unequal sizes, which JSON, MessagePack "
    "and CSV hold and other formats do not",
    "write `ragged: true` for the output in model.yaml, so that clients can read it there",
)
LENGTHS = Rule(
    "breach",
    "rows of different lengths share a batch, and an output with `unpad: true` is cut to the "
    "length of each row; one of another length than the batch cannot be cut",
    "return one value for each one of the input, or a list with one array for each row and "
    "`ragged: true` in place of `unpad`",
)
BLIND = Rule(
    "note",
    "answers that went to the wrong row would not be noticed",
    "declare a `sample` of several rows whose answers differ",
)
REFUSED = Rule(
    "note", "rows are made from those of the sample, and may be none that the model can take"
)
SHARED = Rule(
    "note",
    "answers still being written must not change, so the server copies the outputs of each batch",
    "return new arrays to save the copy",
)
SLOWER = Rule(
    "note",
    "batching pays where a row costs less in a large batch than alone",
    "lower max_batch_size, or look for loops over rows and for more threads than cores",
)
HINT = Rule("note")
"""What the server says about a model at start; the text itself says why and what to do."""


def of_file(finding: Finding) -> Finding:
    """Return `finding` for a model of one file, whose declarations stand in no `model.yaml`."""
    if finding.rule in (FILE, HINT):
        return finding
    why, mend = (
        text.replace("model.yaml", "the file's declaration")
        for text in (finding.rule.why, finding.rule.mend)
    )
    return replace(finding, rule=replace(finding.rule, why=why, mend=mend))
