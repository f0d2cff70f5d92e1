"""Which class or function of a Python file is the model, and what it says of its inputs.

The model is, in this order: what `file.py:Name` names; the only one that `@batcher.model` declares;
the one called `Model`; the only class that is a `torch.nn.Module` or has `predict`. Classes that
the file has imported do not count. Several that are left are an error that lists them.

What the inputs are is said, in this order, by whoever starts the server, by `@batcher.model`, by
the annotations of `forward` or `predict`, or by a first example.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from batcher.config.model_file import ModelDefinition
from batcher.config.single_file import SingleFile
from batcher.core.spec import ModelSpec
from batcher.errors import ConfigError
from batcher.models.declaring import Declaration, declaration_of, sample_attribute
from batcher.models.describing.annotated import inputs_of, outputs_of, parameters_of
from batcher.models.describing.examples import example_by_name, tensor_of
from batcher.models.describing.wanted import Found, listed
from batcher.models.loading import reason_of
from batcher.models.own_code import with_place
from batcher.models.version_code.importing import import_from_folder

_NUMBERS = "FP32[4]"
_TEXTS = {"text", "texts", "sentence", "sentences", "prompt", "prompts"}
_MODULE = "torch.nn.modules.module.Module"
_EXAMPLE = """\
    import batcher

    @batcher.model(inputs={"x": "FP32[4]"})  # dtype and shape of one row
    class Model:
        def predict(self, inputs):
            return {"y": inputs["x"] * 2}"""


def describe_python(single: SingleFile) -> Found:
    """Return what a file of Python says of its model. Raises ConfigError."""
    name, target = _find(_imported(single), single)
    found = describe_class(target, f"{single.file.name}: {name}", single)
    found.values |= {"format": "python", "class": f"{single.file.stem}:{name}"}
    found.notes.insert(0, f"{kind_in_words(target)} {name} of {single.file.name}")
    return found


def describe_class(target: Any, title: str, single: SingleFile, in_program: bool = False) -> Found:
    """Return what the class or function `target` says; `title` names it. Raises ConfigError.

    `in_program` tells whether a program serves it by `batcher.serve`, which takes arguments.
    """
    declared = declaration_of(target) or Declaration()
    found = Found(dict(declared.more), [])
    function = _called(target)
    # An array is neither true nor false.
    sample = declared.sample if single.sample is None else single.sample
    sample = sample_attribute(target) if sample is None else sample
    if sample is not None:
        names = [each.name for each in parameters_of(function)]
        known = list(single.inputs or declared.inputs or ([] if names == ["inputs"] else names))
        found.example = example_by_name(sample, known, single.file.parent)
    _add_inputs(found, single, declared, function, title)
    if "inputs" not in found.values or _is_plain_function(target):
        raise ConfigError(_nothing_said(target, title, function, in_program))
    if outputs := single.outputs or declared.outputs or outputs_of(function):
        found.values["outputs"] = listed(outputs, title)
        found.notes.append("outputs: as declared")
    return found


def _add_inputs(
    found: Found,
    single: SingleFile,
    declared: Declaration,
    function: Callable[..., Any],
    title: str,
) -> None:
    """Add the inputs to what is `found`, if anybody says them. Raises ConfigError."""
    for inputs, note in (
        (single.inputs, "as --input, inputs= or the settings say"),
        (declared.inputs, "as declared"),
        (inputs_of(function), "from annotations"),
    ):
        if inputs:
            found.values["inputs"] = listed(inputs, title)
            found.notes.append(f"inputs: {note}")
            return
    if found.example is not None:
        found.values["inputs"] = [tensor_of(*each) for each in found.example.items()]
        found.notes.append("inputs: of the shape of the first example")


def _is_plain_function(target: Any) -> bool:
    """Whether `target` takes arguments, and does not say itself that these are inputs."""
    if not inspect.isfunction(target) or not parameters_of(target):
        return False
    return declaration_of(target) is None and inputs_of(target) is None


def _imported(single: SingleFile) -> ModuleType:
    """Import the file. Raises ConfigError, whatever the file raises."""
    file, stem = single.file, single.file.stem
    if not stem.replace("-", "_").isidentifier():
        raise ConfigError(
            f"{file.name}: expected the name of a module, of letters, digits, _ and -; rename the "
            "file"
        )
    stub = ModelSpec(stem, "1", (), ())
    definition = ModelDefinition(stub, "python", file.parent, file, learnt=("one file",))
    try:
        module = import_from_folder(definition, stem)
    # Also SystemExit, whatever the code of the file does.
    except BaseException as err:
        raise ConfigError(_import_error(file, err)) from err
    # The names of its modules go with the definition.
    module.__dict__["__batcher_definition__"] = definition
    return module


def _import_error(file: Path, error: BaseException) -> str:
    """Return in words why `file` cannot be imported."""
    if isinstance(error, SyntaxError):
        place = f"{Path(error.filename or file).name}:{error.lineno}"
        return f"{place}: {error.msg}: {(error.text or '').strip()!r:.120}"
    if isinstance(error, ConfigError):  # what a declaration in the file says wrongly
        return f"{file.name}: {error}"
    is_missing = isinstance(error, ModuleNotFoundError)
    return (
        f"{file.name}: expected a file that can be imported; got "
        f"{with_place(reason_of(error), error)}"
        f"{'; install that library where the server runs' * is_missing}"
    )


def _find(module: ModuleType, single: SingleFile) -> tuple[str, Any]:
    """Return name and object of the model in `module`. Raises ConfigError."""
    found, file = _candidates(module), single.file.name
    if single.entry:
        return single.entry, _named(module, single, found)
    declared = {name: each for name, each in found.items() if declaration_of(each) is not None}
    narrowed = declared or ({"Model": found["Model"]} if "Model" in found else found)
    if len(narrowed) == 1:
        return next(iter(narrowed.items()))
    if narrowed:
        names = " or ".join(f"{file}:{name}" for name in narrowed)
        got = ", ".join(narrowed)
        raise ConfigError(f"{file}: expected one model; got {got}: name one, as in {names}")
    functions = _functions(module)
    if len(functions) == 1:
        return next(iter(functions.items()))
    raise ConfigError(
        f"{file}: expected a torch.nn.Module, a class with predict, or a function that "
        f"@batcher.model declares; got {_others(module, functions)}. Write one:\n\n{_EXAMPLE}"
    )


def _named(module: ModuleType, single: SingleFile, found: Mapping[str, Any]) -> Any:
    """Return the class or function that the path names. Raises ConfigError."""
    target = getattr(module, single.entry, None)
    if not callable(target):
        known = ", ".join(f"{single.file.name}:{name}" for name in found)
        raise ConfigError(
            f"{single.title}: expected a class or a function of {single.file.name}; got "
            f"{single.entry!r}; there are: {known or 'none'}"
        )
    return target


def _functions(module: ModuleType) -> dict[str, Any]:
    """Return the functions that the file defines, by name."""
    return {
        name: each
        for name, each in vars(module).items()
        if inspect.isfunction(each) and each.__module__ == module.__name__ and name[0] != "_"
    }


def _others(module: ModuleType, functions: Mapping[str, Any]) -> str:
    """Return in words what a file has in the place of a model."""
    own = [each for each in vars(module).values() if isinstance(each, type)]
    if kinds := [each.__name__ for each in own if each.__module__ == module.__name__]:
        return f"the class {kinds[0]}, which has no predict"
    if functions:
        return f"functions alone ({', '.join(list(functions)[:5])}), which say nothing"
    made = [name for name, each in vars(module).items() if is_module(type(each))]
    if made:
        return f"{made[0]}, which is made already: a function that returns it would do"
    return "none"


def _candidates(module: ModuleType) -> dict[str, Any]:
    """Return the models that `module` itself defines, by name."""
    return {
        name: each
        for name, each in vars(module).items()
        if getattr(each, "__module__", None) == module.__name__
        and (
            declaration_of(each) is not None
            or (inspect.isfunction(each) and inputs_of(each) is not None)
            or (isinstance(each, type) and _is_model(each) and not inspect.isabstract(each))
        )
    }


def _is_model(kind: type) -> bool:
    return callable(getattr(kind, "predict", None)) or is_module(kind)


def is_module(kind: type) -> bool:
    """Return whether `kind` is a `torch.nn.Module`; PyTorch is imported by then, if so."""
    return any(f"{base.__module__}.{base.__name__}" == _MODULE for base in kind.__mro__)


def kind_in_words(target: Any) -> str:
    """Return what `target` is: a function, a class, or a module's class."""
    if not isinstance(target, type):
        return "function"
    return "torch.nn.Module" if is_module(target) else "class"


def _called(target: Any) -> Callable[..., Any]:
    """Return the function that takes the inputs of `target`."""
    names: tuple[str, ...] = ("predict", "preprocess")
    if not isinstance(target, type):
        names = ()
    elif is_module(target) and not hasattr(target, "preprocess"):
        names = ("forward",)
    methods = (getattr(target, name, None) for name in names)
    found: Callable[..., Any] = next(filter(None, methods), target)
    return found


def _nothing_said(target: Any, title: str, function: Callable[..., Any], in_program: bool) -> str:
    """Return the error of a model that says nothing of its inputs, and what to write."""
    needed = [each for each in parameters_of(function) if each.default is each.empty]
    takes_text = getattr(function, "__name__", "") != "forward"  # which PyTorch calls with tensors
    texts = {each.name: _likely(each, takes_text) for each in needed}
    # `predict` mostly gets all inputs as one mapping.
    texts = {"x": _NUMBERS} if not texts or list(texts) == ["inputs"] else texts
    inputs = ", ".join(f'"{name}": "{text}"' for name, text in texts.items())
    nothing = f"{title}: expected names, dtypes and shapes of the inputs; got none."
    row = "the datatype and the shape of one row, -1 where any size will do:"
    if in_program:
        return (
            f"{nothing} Say them, with {row}\n\n    batcher.serve(…, inputs={{{inputs}}})\n\nor "
            "give a first example: `sample=`, an array or a file (.npy, .npz, .json)"
        )
    sample = (
        "or give a first example: --sample example.npy (or .npz, .json), or `sample=` in Python"
        if isinstance(target, type)
        else "A function without arguments is taken to make the model"
    )
    return (
        f"{nothing} Write above it, with {row}\n\n    import batcher\n"
        f"\n    @batcher.model(inputs={{{inputs}}})\n    {_head(target)}\n\n{sample}"
    )


def _likely(parameter: inspect.Parameter, takes_text: bool) -> str:
    """Return the text of a tensor that somebody may mean by a parameter's type, or its name."""
    kind = getattr(parameter.annotation, "__name__", str(parameter.annotation))
    of_name = "BYTES" if takes_text and parameter.name in _TEXTS else _NUMBERS
    return {"str": "BYTES", "bytes": "BYTES", "int": "INT64", "float": "FP32", "bool": "BOOL"}.get(
        kind, of_name
    )


def _head(target: Any) -> str:
    name = getattr(target, "__name__", "Model")
    if not isinstance(target, type):
        return f"def {name}{inspect.signature(target)}:"
    return f"class {name}(torch.nn.Module):" if is_module(target) else f"class {name}:"
