"""A `.pt2` archive from somebody else must not run code.

Every way that is known is refused, and its payload did not run.

Each attack writes a file when it succeeds. That it really does, without the check, is shown by
loading the same archive as a trusted model.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from batcher.config.model_file import ModelDefinition
from batcher.errors import ModelLoadError
from batcher.models.pytorch.archive_check import check_archive
from tests.support.model_folders import Folders, answers

DIGITS = Path(__file__).parents[3] / "models/digits/1/model.pt2"
PROGRAM, SAMPLES = "model/models/model.json", "model/data/sample_inputs/model.pt"
WEIGHTS = "model/data/weights/model_weights_config.json"
Members = list[tuple[str, bytes]]
Attack = Callable[[Members, Path], Members]

pytestmark = pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")


def members() -> Members:
    with ZipFile(DIGITS) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def replaced(found: Members, name: str, content: bytes) -> Members:
    assert name in dict(found)
    return [(each, content if each == name else old) for each, old in found]


def edited(found: Members, name: str, change: Callable[[dict[str, Any]], None]) -> Members:
    document = json.loads(dict(found)[name])
    change(document)
    return replaced(found, name, json.dumps(document).encode())


def respelt(found: Members, old: str, new: str) -> Members:
    text = dict(found)[PROGRAM].decode()
    assert old in text
    return replaced(found, PROGRAM, text.replace(old, new).encode())


def expression(ran: Path) -> str:
    """Return Python that writes the file and is true."""
    return f"__import__('pathlib').Path('{ran}').write_text('x')"


class Opens:
    """A pickle of this opens a file for writing when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def pickled(ran: Path) -> bytes:
    file = BytesIO()
    torch.save((Opens(ran),), file)
    return file.getvalue()


def pickled_samples(found: Members, ran: Path) -> Members:
    return replaced(found, SAMPLES, pickled(ran))


def pickled_weights(found: Members, ran: Path) -> Members:
    def change(document: dict[str, Any]) -> None:
        document["config"]["edges.bias"]["use_pickle"] = True

    return replaced(edited(found, WEIGHTS, change), "model/data/weights/weight_1", pickled(ran))


def pickled_constant(found: Members, ran: Path) -> Members:
    meta = json.loads(dict(found)[WEIGHTS])["config"]["edges.bias"]["tensor_meta"]
    meta |= {"dtype": 1, "requires_grad": False}  # bytes

    def change(document: dict[str, Any]) -> None:
        document["config"]["c"] = {
            "path_name": "opaque_obj_0",
            "is_param": False,
            "use_pickle": False,
            "tensor_meta": meta,
        }

    changed = edited(found, "model/data/constants/model_constants_config.json", change)
    return [*changed, ("model/data/constants/opaque_obj_0", pickle.dumps(Opens(ran)))]


def legacy_weights(found: Members, ran: Path) -> Members:
    return [*found, ("model/data/weights/model.pt", pickled(ran))]


def evil_size(found: Members, ran: Path) -> Members:
    text = dict(found)[PROGRAM].decode()
    return replaced(
        found,
        PROGRAM,
        text.replace('"expr_str": "', f'"expr_str": "{expression(ran)} or ').encode(),
    )


def evil_guard(found: Members, ran: Path) -> Members:
    return edited(found, PROGRAM, lambda document: document.update(guards_code=[expression(ran)]))


def evil_argument(found: Members, ran: Path) -> Members:
    return respelt(found, '"image"', f'"image={expression(ran)}"')


def evil_tree(found: Members, ran: Path, which: str = "in_spec") -> Members:
    planted = f"planted_by_{ran.parent.name}"  # a module that is not imported yet
    (ran.parent / f"{planted}.py").write_text(expression(ran))
    enum = json.dumps({"__enum__": True, "fqn": f"{planted}:X", "name": "y"})

    def change(document: dict[str, Any]) -> None:
        signature = document["graph_module"]["module_call_graph"][0]["signature"]
        layout = json.loads(signature[which])
        layout[1]["context"] = enum
        if layout[1]["type"] is None:  # a lone tensor
            layout[1].update(
                type="builtins.tuple",
                children_spec=[{"type": None, "context": None, "children_spec": []}],
            )
        signature[which] = json.dumps(layout)

    return edited(found, PROGRAM, change)


def evil_outputs(found: Members, ran: Path) -> Members:
    return evil_tree(found, ran, "out_spec")


def evil_keyword(found: Members, ran: Path) -> Members:
    """The names of keywords are written into a dict in the code, in quotes that this one ends."""
    name = f"a': {expression(ran)}, 'b"
    leaf = {"type": None, "context": None, "children_spec": []}

    def change(document: dict[str, Any]) -> None:
        signature = document["graph_module"]["module_call_graph"][0]["signature"]
        layout = json.loads(signature["in_spec"])
        arguments, keywords = layout[1]["children_spec"]
        arguments["children_spec"] = []
        keywords.update(context=json.dumps([name]), children_spec=[leaf])
        signature.update(in_spec=json.dumps(layout), forward_arg_names=["image"])

    return edited(found, PROGRAM, change)


def hidden_behind_a_duplicate(found: Members, ran: Path) -> Members:
    evil = dict(evil_size(found, ran))[PROGRAM]
    return [
        *[(PROGRAM, evil)] * 4,
        *found,
    ]  # Python's zipfile reads the last of them, PyTorch's reader another


def node(target: str, argument: str, result: str) -> dict[str, Any]:
    """Return a node of a graph that calls `target` with one tensor more than `argument`."""
    names = {"self": argument, "other": "planted"}
    inputs = [
        {"name": name, "arg": {"as_tensor": {"name": tensor}}, "kind": 1}
        for name, tensor in names.items()
    ]
    outputs = [{"as_tensor": {"name": result}}]
    return {"target": target, "inputs": inputs, "outputs": outputs, "metadata": {}, "name": result}


def evil_file(found: Members, ran: Path) -> Members:
    """`aten::from_file` makes the file that it maps, and maps any file that there is."""
    inputs = [
        {"name": "filename", "arg": {"as_string": str(ran)}, "kind": 1},
        {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
        {"name": "size", "arg": {"as_int": 1}, "kind": 1},
    ]

    def change(document: dict[str, Any]) -> None:
        graph = document["graph_module"]["graph"]
        values, nodes = graph["tensor_values"], graph["nodes"]
        one = [{"as_int": 1}]
        values["planted"] = next(iter(values.values())) | {"sizes": one, "strides": one}
        # The first operator takes a sum with the file: a result that nothing needs is left out.
        first = nodes[0]["inputs"][0]["arg"]["as_tensor"]["name"]
        values["total"] = values[first]
        nodes[0]["inputs"][0]["arg"]["as_tensor"]["name"] = "total"
        called = node("torch.ops.aten.from_file.default", "", "planted") | {"inputs": inputs}
        nodes[:0] = [called, node("torch.ops.aten.add.Tensor", first, "total")]

    return edited(found, PROGRAM, change)


ATTACKS = [
    evil_file,
    pickled_samples,
    pickled_weights,
    pickled_constant,
    legacy_weights,
    evil_size,
    evil_guard,
    evil_argument,
    evil_tree,
    evil_outputs,
    hidden_behind_a_duplicate,
]
REFUSED = [*ATTACKS, evil_keyword]
"""The last one is written into the code of a function, whose call then fails for other reasons."""


def archived(found: Members) -> bytes:
    file = BytesIO()
    with ZipFile(file, "w") as archive:
        for name, content in found:
            archive.writestr(name, content)
    return file.getvalue()


def load_all(file: Any, **_: Any) -> Any:
    """Stand for `torch.load`, as code of other models may replace it for old checkpoints."""
    return torch.serialization.load(file, weights_only=False)


def define(folders: Folders, content: bytes) -> ModelDefinition:
    inputs, outputs = (
        "[{name: image, dtype: FP32, shape: [1, 8, 8]}]",
        "[{name: scores, dtype: FP32, shape: [10]}]",
    )
    return folders.define("format: export\nfile: net.pt2", {"net.pt2": content}, inputs, outputs)


@pytest.mark.parametrize("attack", REFUSED)
def test_an_archive_that_would_run_code_is_refused_and_the_code_did_not_run(
    folders: Folders, tmp_path: Path, attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    ran = tmp_path / "ran"
    definition = define(folders, archived(attack(members(), ran)))
    with pytest.raises(ModelLoadError, match=r"^model 'm' version 1: .*trusted: true"):
        folders.load(definition)
    assert not ran.exists()


@pytest.mark.parametrize("attack", REFUSED)
def test_the_check_alone_refuses_it_before_anything_is_loaded(
    folders: Folders, tmp_path: Path, attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = define(folders, archived(attack(members(), tmp_path / "ran")))
    monkeypatch.setattr(torch, "load", load_all)
    with pytest.raises(ModelLoadError):
        check_archive(definition.file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_same_archive_would_have_run_its_code_had_it_been_trusted(
    folders: Folders, tmp_path: Path, attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    ran = tmp_path / "ran"
    definition = define(folders, archived(attack(members(), ran)))
    with suppress(ModelLoadError):  # most archives are of no use once their code has run
        folders.load(definition, trusted=True)
    assert ran.exists()


def test_the_repositorys_own_archive_passes_the_check() -> None:
    check_archive(DIGITS)


def test_an_archive_that_was_only_packed_anew_gives_the_same_answers(folders: Folders) -> None:
    image = np.random.default_rng(0).random((3, 1, 8, 8), "f4")
    found = answers(folders.load(define(folders, archived(members()))), image=image)["scores"]
    expected = torch.export.load(DIGITS).module()(torch.from_numpy(image)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


class Sizes(torch.nn.Module):
    """Needs sizes that are computed: a product, a quotient, a remainder, and a guard."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, width = x.shape
        halves = x.reshape(rows * 2, width // 2)
        return torch.cat([halves[:, : width // 2], halves], dim=1).reshape(rows, -1) * (width % 7)


def test_an_honest_archive_with_computed_sizes_passes_the_check(tmp_path: Path) -> None:
    rows, half = torch.export.Dim("rows", min=1, max=64), torch.export.Dim("half", min=2, max=32)
    program = torch.export.export(
        Sizes(), (torch.ones(3, 8),), dynamic_shapes=({0: rows, 1: 2 * half},)
    )
    torch.export.save(program, tmp_path / "net.pt2")
    check_archive(tmp_path / "net.pt2")


class Named(torch.nn.Module):
    """Its inputs and outputs are told apart by names."""

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> dict[str, Any]:
        return {"twice": x * 2, "more": {"scaled": x * scale, "list": [x, x + 1]}}


def test_an_honest_archive_whose_inputs_and_outputs_have_names_passes_the_check(
    tmp_path: Path,
) -> None:
    program = torch.export.export(Named(), (torch.ones(3, 8),), {"scale": torch.ones(3, 8)})
    torch.export.save(program, tmp_path / "net.pt2")
    check_archive(tmp_path / "net.pt2")
    again = torch.export.load(tmp_path / "net.pt2").module()(
        torch.ones(3, 8), scale=torch.ones(3, 8)
    )
    assert again["more"]["list"][1].eq(2).all()


class Nonzero(torch.nn.Module):
    """Has a size that depends on the values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1] * 0 + torch.nonzero(x > 0).size(0)


class Masked(torch.nn.Module):
    """Picks values by a mask."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1] * 0 + x[x > 0].sum()


class Checks(torch.nn.Module):
    """States what it expects of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch._check(x.shape[0] <= 100)
        torch._check(x.shape[0] * 2 < 300)
        return x[:, :1] + 1


class Einsum(torch.nn.Module):
    """Has a text as an argument."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bi,ij->bj", x, torch.eye(4)[:, 1:2])


class Branches(torch.nn.Module):
    """Has a graph for each branch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = (lambda y: y + 1, lambda y: y - 1)
        result: torch.Tensor = torch.cond(x.sum() > 0, *branches, (x[:, :1],))
        return result


class EachRow(torch.nn.Module):
    """Works on one row at a time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.vmap(lambda row: row.sum(0, keepdim=True))(x)


class Powers(torch.nn.Module):
    """Takes a power of a size, which is no whole number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1] * 0 + x.shape[0] ** 0.5


class Names(torch.nn.Module):
    """Has weights whose names are no names of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleDict({"layer one": torch.nn.BatchNorm1d(4)})
        self.weights = torch.nn.ParameterDict({"w-1 (first)": torch.nn.Parameter(torch.ones(1))})
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers["layer one"](x)
        return result[:, :1].round() + self.weights["w-1 (first)"]


@pytest.mark.parametrize(
    ("module", "right"),
    [
        (Nonzero(), 4),
        (Masked(), 10),
        (Checks(), 2),
        (Einsum(), 2),
        (Branches(), 2),
        (EachRow(), 10),
        (Powers(), 1),
        (Names(), 2),
    ],
    ids=["nonzero", "mask", "check", "einsum", "cond", "vmap", "power", "names"],
)
def test_a_harmless_program_is_served_without_trust(
    folders: Folders, module: torch.nn.Module, right: float
) -> None:
    axes = ({0: torch.export.Dim.DYNAMIC},)
    file = BytesIO()
    torch.export.save(torch.export.export(module, (torch.ones(2, 4),), dynamic_shapes=axes), file)
    outputs = "[{name: y, dtype: FP32, shape: [1]}]"
    files: dict[str, str | bytes] = {"net.pt2": file.getvalue()}
    definition = folders.define("format: export\nfile: net.pt2", files, outputs=outputs)
    found = answers(folders.load(definition), x=np.array([[1, 2, 3, 4]], "f4"))
    assert found["y"].tolist() == [[right]]


@pytest.mark.parametrize("name", ['a"', "a'", "a\\", "a\n", "a\x00"])
def test_a_name_of_an_output_that_could_end_a_quotation_is_refused(
    folders: Folders, name: str
) -> None:
    def change(document: dict[str, Any]) -> None:
        signature = document["graph_module"]["module_call_graph"][0]["signature"]
        leaf = {"type": None, "context": None, "children_spec": []}
        layout = {"type": "builtins.dict", "context": json.dumps([name]), "children_spec": [leaf]}
        signature["out_spec"] = json.dumps([1, layout])

    with pytest.raises(ModelLoadError, match="the container"):
        folders.load(define(folders, archived(edited(members(), PROGRAM, change))))


@pytest.mark.parametrize("name", ['a"', "a'", "a\\", "a\n"])
def test_a_name_of_a_weight_that_could_end_a_quotation_is_refused(
    folders: Folders, name: str
) -> None:
    def change(document: dict[str, Any]) -> None:
        specs = document["graph_module"]["signature"]["input_specs"]
        next(spec for spec in specs if "parameter" in spec)["parameter"]["parameter_name"] = name

    with pytest.raises(ModelLoadError, match="parameter_name"):
        folders.load(define(folders, archived(edited(members(), PROGRAM, change))))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model/extra/code.py", "extra/code.py"),
        ("model/data/aotinductor/model/net.so", "data/aotinductor/model/net.so"),
        ("model/data/constants/custom_obj_0", "data/constants/custom_obj_0"),
        ("model/models/model.pkl", "models/model.pkl"),
        ("serialized_exported_program.json", ""),
        ("model/../model/data.pkl", "data.pkl"),
    ],
)
def test_a_member_that_is_not_known_to_be_harmless_is_refused_by_its_name(
    folders: Folders, name: str, what: str
) -> None:
    definition = define(folders, archived([*members(), (name, b"x")]))
    with pytest.raises(ModelLoadError, match=f"{what}.*a member that may be a pickle"):
        folders.load(definition)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"null"])
def test_a_program_that_is_no_json_is_refused(folders: Folders, content: bytes) -> None:
    with pytest.raises(ModelLoadError, match=r"^model 'm' version 1: "):
        folders.load(define(folders, archived(replaced(members(), PROGRAM, content))))
