"""Models compiled ahead of time.

The same answers, kept and found again, and what happens where it cannot be done.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Lock, Thread
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from batcher.app.cli import main
from batcher.config.model_file import ModelDefinition, load_model_definition
from batcher.config.model_settings import ModelSettings
from batcher.errors import ModelLoadError
from batcher.models.pytorch import aoti_program, aoti_run
from batcher.models.pytorch.aoti_packages import Notes, package_key
from batcher.models.pytorch.batch_sizes import BatchSizes
from batcher.models.pytorch.export import ExportModel
from tests.support.model_folders import Folders, answers

REPOSITORY = Path(__file__).parents[3]
SOURCE = """
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layers = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(24)])

    def forward(self, x, mask):
        return self.layers(x) * mask.unsqueeze(-1), x.sum(1)
"""
INPUTS = "[{name: x, dtype: FP32, shape: [4]}, {name: mask, dtype: INT64, shape: []}]"
OUTPUTS = "[{name: y, dtype: FP32, shape: [4]}, {name: z, dtype: FP32, shape: []}]"
ROWS = np.random.default_rng(0).random((70, 4), dtype=np.float32)
MASK = np.arange(70) % 3


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def libraries_mapped() -> set[str]:
    """Return the paths of the libraries of packages that are in the memory of this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[5] for line in lines if "batcher-aoti-" in line}


def network(folders: Folders, source: str = SOURCE) -> ModelDefinition:
    return folders.python(source, inputs=INPUTS, outputs=OUTPUTS)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages are kept between the tests of this module: compiling takes seconds."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Here, not above: PyTorch's compiler takes a second to import, in each process that collects.
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    # PyTorch's own cache outlives the tests: it keeps headers, which take a minute to compile.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts the compiler fails."""

    def started(*arguments: object, **more: object) -> None:
        raise AssertionError("the compiler was started")

    monkeypatch.setattr("batcher.models.pytorch.aoti.subprocess.run", started)


class ByName(torch.nn.Module):
    """Names its outputs, and not in the order of the specification."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)
        )

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"z": x.sum(1), "y": self.layers(x)}


def exported(folders: Folders) -> ModelDefinition:
    axes = ({0: torch.export.Dim("batch", max=8)},)
    program = torch.export.export(ByName().eval(), (torch.zeros(3, 4),), dynamic_shapes=axes)
    folders.base.mkdir(parents=True)
    torch.export.save(program, folders.base / "model.pt2")
    files: dict[str, str | bytes] = {"model.pt2": (folders.base / "model.pt2").read_bytes()}
    return folders.define("format: export\nfile: model.pt2", files, outputs=OUTPUTS)


@pytest.mark.long
class TestCompiled:
    def test_a_python_module_gives_the_same_answers_at_every_batch_size_and_is_found_again(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        eager = folders.load(network(folders), max_batch_size=70)
        compiled = folders.load(
            network(folders), max_batch_size=70, compile="aoti", torch_threads=1
        )
        assert (eager.model.one_call, compiled.model.one_call) == (False, True)
        assert "compiling" in folders.progress
        for rows in (1, 2, 3, 16, 70):
            inputs = {"x": ROWS[:rows], "mask": MASK[:rows]}
            expected, found = answers(eager, **inputs), answers(compiled, **inputs)
            for name in ("y", "z"):
                assert found[name].shape == expected[name].shape
                np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
        folders.progress.clear()
        monkeypatch.setattr("batcher.models.pytorch.aoti.subprocess.run", None)
        assert folders.load(
            network(folders), max_batch_size=70, compile="aoti", torch_threads=1
        ).model.one_call
        assert "compiling" not in folders.progress

    def test_an_exported_program_gives_the_same_answers_by_their_names_up_to_its_largest_batch(
        self, folders: Folders
    ) -> None:
        definition = exported(folders)
        eager = folders.load(definition, max_batch_size=64)
        compiled = folders.load(definition, max_batch_size=64, compile="aoti", torch_threads=1)
        assert compiled.model.one_call
        assert compiled.loaded().max_rows == 8
        for rows in (1, 2, 5):
            expected, found = answers(eager, x=ROWS[:rows]), answers(compiled, x=ROWS[:rows])
            np.testing.assert_allclose(found["y"], expected["y"], atol=1e-5)
            np.testing.assert_allclose(found["z"], ROWS[:rows].sum(1), atol=1e-5)

    def test_the_interpreter_lock_is_free_while_it_runs(self, folders: Folders) -> None:
        compiled = folders.load(
            network(folders), max_batch_size=70, compile="aoti", torch_threads=1
        ).model
        rows = 400_000  # long enough for another thread to wake up
        inputs = {"x": np.ones((rows, 4), "<f4"), "mask": np.ones(rows, "<i8")}
        go, ran = Lock(), []
        go.acquire()
        other = Thread(target=lambda: (go.acquire(), ran.append(True)))
        interval = sys.getswitchinterval()
        other.start()
        sys.setswitchinterval(1000)  # nobody is made to let go of the lock
        try:
            tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
            go.release()
            # of the module, without what is around it
            outputs = compiled.call(tensors)  # type: ignore[attr-defined]
            seen = list(ran)
        finally:
            sys.setswitchinterval(interval)
            other.join()
        assert seen == [True]
        assert len(outputs[0]) == rows

    def test_nothing_is_left_behind_by_a_call(self, folders: Folders) -> None:
        compiled = folders.load(
            network(folders), max_batch_size=70, compile="aoti", torch_threads=1
        )
        inputs = {"x": np.ones((5000, 4), "<f4"), "mask": np.ones(5000, "<i8")}
        for _ in range(20):
            answers(compiled, **inputs)
        before = resident()
        for _ in range(200):
            answers(compiled, **inputs)
        assert resident() - before < 4 << 20, "200 calls of 100 KB"

    def test_what_it_takes_leaves_the_process_with_the_thread_that_has_loaded_it(
        self, folders: Folders
    ) -> None:
        """The library is closed with the model, and leaves at the next such end."""

        def load() -> None:
            model = folders.load(
                network(folders), max_batch_size=70, compile="aoti", torch_threads=1
            )
            assert model.model.one_call

        before = libraries_mapped()  # those of this thread, which goes on
        for _ in range(4):
            thread = Thread(target=load)
            thread.start()
            thread.join()
        gc.collect()
        assert len(libraries_mapped() - before) <= 1
        assert not list(Path(tempfile.gettempdir()).glob("batcher-aoti-*"))

    def test_packages_lie_where_nobody_else_may_write(self, folders: Folders, cache: Path) -> None:
        folders.load(network(folders), max_batch_size=70, compile="aoti", torch_threads=1)
        assert [file.suffix for file in (cache / "batcher" / "aoti").iterdir()] == [".pt2"] * len(
            list((cache / "batcher" / "aoti").iterdir())
        ), "nothing unfinished is left"
        assert (cache / "batcher" / "aoti").stat().st_mode & 0o077 == 0


class TestNotCompiled:
    def test_without_a_compiler_the_model_is_served_as_it_is_and_the_reason_told(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        from torch._inductor.exc import InvalidCxxCompiler

        def none() -> str:
            raise InvalidCxxCompiler

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
        checked = folders.load(network(folders), compile="aoti")
        assert not checked.model.one_call
        (told,) = [text for text in folders.progress if text.startswith("not compiled")]
        assert "C++ compiler" in told
        assert "g++" in told
        assert answers(checked, x=ROWS[:3], mask=MASK[:3])["y"].shape == (3, 4)

    @pytest.mark.long
    def test_what_the_compiler_cannot_take_is_served_as_it_is(self, folders: Folders) -> None:
        source = SOURCE.replace(
            "return self.layers", "x = x if float(x.sum()) > 0 else -x\n        return self.layers"
        )
        checked = folders.load(network(folders, source), compile="aoti")
        assert not checked.model.one_call
        assert [
            text
            for text in folders.progress
            if text.startswith("not compiled: the compiler failed: ")
        ]
        assert answers(checked, x=ROWS[:3], mask=MASK[:3])["y"].shape == (3, 4)

    @pytest.mark.usefixtures("no_compiler")
    def test_a_module_with_preprocess_is_served_as_it_is_for_native_code_does_not_check_inputs(
        self, folders: Folders
    ) -> None:
        source = SOURCE + "\n    def preprocess(self, inputs):\n        return inputs\n"
        assert not folders.load(network(folders, source), compile="aoti").model.one_call
        assert [text for text in folders.progress if "preprocess" in text]

    @pytest.mark.usefixtures("no_compiler")
    def test_a_class_with_predict_is_served_as_it_is(self, folders: Folders) -> None:
        source = "class Model:\n    def predict(self, inputs):\n        return {'y': inputs['x']}\n"
        checked = folders.load(folders.python(source), compile="aoti")
        assert not checked.model.one_call
        assert [text for text in folders.progress if "torch.nn.Module" in text]

    @pytest.mark.usefixtures("no_compiler")
    def test_a_folder_that_others_may_write_to_is_not_trusted(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        shared = tmp_path / "batcher" / "aoti"
        shared.mkdir(parents=True)
        shared.chmod(0o777)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert not folders.load(network(folders), compile="aoti").model.one_call
        assert [text for text in folders.progress if "others may write to it" in text]

    @pytest.mark.usefixtures("no_compiler")
    def test_a_free_axis_is_not_compiled_since_native_code_does_not_check_sizes(
        self, folders: Folders
    ) -> None:
        inputs = (
            "[{name: x, dtype: FP32, shape: [-1], warmup_shape: [4]}, {name: mask, dtype: INT64, "
            "shape: []}]"
        )
        source = SOURCE.replace(
            "self.layers(x) * mask.unsqueeze(-1)", "x.sum(1, keepdim=True).expand(-1, 4)"
        )
        checked = folders.load(
            folders.python(source, inputs=inputs, outputs=OUTPUTS), compile="aoti"
        )
        assert not checked.model.one_call
        assert [text for text in folders.progress if "free axes" in text]


def test_a_model_of_many_operators_is_given_a_hint_and_one_of_few_is_not(folders: Folders) -> None:
    folders.load(network(folders))
    (hint,) = [text for text in folders.progress if text.startswith("hint: ")]
    assert int(hint.split()[1]) > 24
    assert "compile: aoti" in hint
    folders.progress.clear()
    folders.load(
        folders.python(
            SOURCE.replace("range(24)", "range(2)"), inputs=INPUTS, outputs=OUTPUTS, version="2"
        )
    )
    assert not [text for text in folders.progress if text.startswith("hint: ")]


@pytest.mark.parametrize(
    ("source", "inputs"),
    [
        (SOURCE, INPUTS.replace("[4]", "[-1], warmup_shape: [4]")),
        (f"{SOURCE}\n    def preprocess(self, inputs):\n        return inputs\n", INPUTS),
    ],
    ids=["a free axis", "preprocess"],
)
def test_a_model_that_cannot_be_compiled_is_not_told_to_be(
    folders: Folders, source: str, inputs: str
) -> None:
    folders.load(folders.python(source, inputs=inputs, outputs=OUTPUTS))
    assert not [text for text in folders.progress if text.startswith("hint: ")]


class TestCommand:
    def test_it_names_the_models_it_knows(self, folders: Folders) -> None:
        network(folders)
        done = CliRunner().invoke(
            main, ["compile", "other", "--set", f"model_repository={folders.base}"]
        )
        assert done.exit_code == 1
        assert "expected one of m; got other" in done.output

    @pytest.mark.long
    def test_it_says_why_a_model_cannot_be_compiled(self, folders: Folders) -> None:
        folders.python(
            "class Model:\n    def predict(self, inputs):\n        return {'y': inputs['x']}\n"
        )
        done = CliRunner().invoke(
            main, ["compile", "m", "--set", f"model_repository={folders.base}"]
        )
        assert done.exit_code == 1
        assert "torch.nn.Module" in done.output

    @pytest.mark.usefixtures("no_compiler")
    def test_it_finds_what_a_server_compiled(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        definition = network(folders)
        from batcher.config.settings import ModelSettings

        folder = tmp_path / "batcher" / "aoti"
        folder.mkdir(parents=True, mode=0o700)
        name = package_key(definition, ModelSettings(torch_threads=1), torch.device("cpu"))
        with ZipFile(folder / f"{name}.pt2", "w"):
            pass
        Notes({}, "", 64).write(folder / f"{name}.pt2")
        options = ["--set", f"model_repository={folders.base}", "--set", "defaults.torch_threads=1"]
        done = CliRunner().invoke(main, ["compile", "m", *options, "--set", "defaults.device=cpu"])
        assert done.output == f"model m/1: {folder / name}.pt2\n"


def test_the_shipped_model_is_compiled_although_its_export_bounds_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed: list[torch.export.ExportedProgram] = []
    monkeypatch.setattr(
        "torch._inductor.aoti_compile_and_package", lambda program, **_: packed.append(program)
    )
    definition = load_model_definition("digits", "1", REPOSITORY / "models/digits/1")
    model = ExportModel(definition, ModelSettings(device="cpu"))
    cpu = torch.device("cpu")
    module = model.source(cpu)
    most = aoti_program.compile_module(definition.spec, module, cpu, Path(), 64, model.sizes)
    assert len(packed) == 1
    assert most >= 64


def test_a_module_that_takes_fewer_rows_than_a_batch_has_is_not_compiled(
    folders: Folders,
) -> None:
    class Bounded(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch._check(x.shape[0] <= 32)
            return x + 1

    spec = folders.python("").spec
    with pytest.raises(ModelLoadError, match="up to 64 rows; it would be compiled for at most 32"):
        aoti_program.compile_module(spec, Bounded(), torch.device("cpu"), Path(), 64)


def test_a_tensor_of_bytes_has_no_dtype_to_compile(folders: Folders) -> None:
    definition = folders.python(
        SOURCE, inputs="[{name: x, dtype: BYTES, shape: []}]", outputs=OUTPUTS
    )
    with pytest.raises(ModelLoadError, match="BYTES"):
        aoti_program._example(definition.spec.inputs[0], torch.device("cpu"), 2)


@pytest.mark.parametrize(
    ("axis", "sizes", "rows", "most"),
    [
        (None, BatchSizes(4, 4, 4), 4, 4),
        (torch.export.Dim("rows", min=5, max=32), BatchSizes(5, 32), 5, 32),
        (torch.export.Dim("rows", max=32), BatchSizes(1, 32), 2, 32),
    ],
)
def test_an_export_for_some_batch_sizes_is_compiled_for_those(
    monkeypatch: pytest.MonkeyPatch,
    folders: Folders,
    axis: torch.export.Dim | None,
    sizes: BatchSizes,
    rows: int,
    most: int,
) -> None:
    packed: list[torch.export.ExportedProgram] = []
    monkeypatch.setattr(
        "torch._inductor.aoti_compile_and_package", lambda program, **_: packed.append(program)
    )
    axes = ({0: axis},) if axis is not None else None
    example = torch.zeros(max(rows, 4), 4)
    module = torch.export.export(torch.nn.ReLU(), (example,), dynamic_shapes=axes).module()
    spec, cpu = folders.python("").spec, torch.device("cpu")
    found = aoti_program.compile_module(spec, module, cpu, Path(), 64, sizes)
    assert found == most
    assert len(packed) == 1


def test_a_library_that_cannot_say_why_it_failed_failed_without_a_reason() -> None:
    library = ctypes.CDLL(None)  # has no such function, as libraries of some versions of PyTorch
    assert aoti_run._last_error(library) == "without a reason"
