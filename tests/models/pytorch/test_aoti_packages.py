"""Compiled packages: which are used, which are made anew, and where they cannot be.

No package is compiled here: a double takes the compiler's place.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from batcher.config.model_file import ModelDefinition
from batcher.config.model_settings import ModelSettings
from batcher.errors import ModelLoadError
from batcher.models.pytorch import aoti
from batcher.models.pytorch.aoti_packages import (
    Notes,
    cache_folder,
    imported_files,
    package_key,
    read_notes,
    weights_digest,
)
from batcher.models.pytorch.aoti_run import UnusableLibrary
from tests.support.model_folders import Folders, answers

CPU = torch.device("cpu")
SOURCE = """
class Model(torch.nn.Module):
    def forward(self, x):
        return x * 2
"""
Compiled = Callable[..., Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("batcher.models.pytorch.aoti._check_compiler", lambda: None)
    return tmp_path / "cache" / "batcher" / "aoti"


class Compiler:
    """Takes the compiler's place.

    Attributes:
        runs: how often it ran.
        notes: what it notes of each package.
        modules: what the packages hold, the first package first; the last one again and again.
    """

    def __init__(self) -> None:
        self.runs = 0
        self.notes = Notes({}, weights_digest(torch.nn.Module()), 64)
        self.modules: list[Compiled | Exception] = [lambda x: x * 2]

    def compile(self, wanted: aoti.Wanted, path: Path) -> None:
        self.runs += 1
        with ZipFile(path, "w") as archive:
            archive.writestr("number", str(self.runs))
        self.notes.write(path)

    def load(self, path: Path, device: torch.device) -> Compiled:
        with ZipFile(path) as archive:
            number = int(archive.read("number"))
        module = self.modules[min(number, len(self.modules)) - 1]
        if isinstance(module, Exception):
            raise module
        return module


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    double = Compiler()
    monkeypatch.setattr("batcher.models.pytorch.aoti._run_compiler", double.compile)
    monkeypatch.setattr("batcher.models.pytorch.aoti.CompiledModule", double.load)
    return double


def load(folders: Folders) -> bool:
    """Load the model; return whether it is compiled. It answers rightly in any case."""
    folders.progress.clear()
    checked = folders.load(folders.python(SOURCE), compile="aoti", torch_threads=1)
    rows = torch.ones(2, 4).numpy()
    assert answers(checked, x=rows)["y"].tolist() == (rows * 2).tolist()
    return checked.model.one_call


def told(folders: Folders, beginning: str) -> str:
    (text,) = [text for text in folders.progress if text.startswith(beginning)]
    return text


class TestKept:
    def test_a_package_that_matches_is_used_again(
        self, folders: Folders, compiler: Compiler
    ) -> None:
        assert load(folders)
        assert load(folders)
        assert compiler.runs == 1

    def test_a_module_from_elsewhere_that_has_changed_makes_it_anew(
        self, folders: Folders, compiler: Compiler, tmp_path: Path
    ) -> None:
        library = tmp_path / "library.py"
        library.write_text("TOP = 10")
        compiler.notes = compiler.notes._replace(files={str(library): "another"})
        assert load(folders)
        compiler.notes = compiler.notes._replace(
            files={str(library): imported_files([module_of(library)], tmp_path / "m")[str(library)]}
        )
        assert load(folders)
        assert f"{library} has changed" in told(folders, "compiled anew: ")
        assert load(folders)
        assert compiler.runs == 2

    def test_other_weights_make_it_anew(self, folders: Folders, compiler: Compiler) -> None:
        right, compiler.notes = compiler.notes, compiler.notes._replace(weights="others")
        assert load(folders)
        compiler.notes = right
        assert load(folders)
        assert "the weights have changed" in told(folders, "compiled anew: ")
        assert compiler.runs == 2

    def test_a_larger_batch_than_it_takes_makes_it_anew(
        self, folders: Folders, compiler: Compiler
    ) -> None:
        compiler.notes = compiler.notes._replace(most=3)
        assert load(folders)
        assert load(folders)
        assert "at most 3 rows" in told(folders, "compiled anew: ")

    def test_other_answers_than_those_of_the_module_make_it_anew_once(
        self, folders: Folders, compiler: Compiler
    ) -> None:
        assert load(folders)
        compiler.modules = [lambda x: x * 3, lambda x: x * 2]
        assert load(folders)
        assert "output 'y' of the compiled model differs" in told(folders, "compiled anew: ")
        assert load(folders)
        assert compiler.runs == 2

    def test_a_package_that_answers_otherwise_although_it_is_new_is_not_used(
        self, folders: Folders, compiler: Compiler
    ) -> None:
        compiler.modules = [lambda x: x * 3]
        assert not load(folders)
        assert "differs" in told(folders, "not compiled: ")
        assert compiler.runs == 1

    def test_weights_that_are_drawn_anew_each_time_are_compiled_once_and_named(
        self, folders: Folders, compiler: Compiler
    ) -> None:
        compiler.notes = compiler.notes._replace(weights="others", is_random=True)
        compiler.modules = [lambda x: x * 3]
        assert not load(folders)
        assert not load(folders)
        assert "give it `weights`" in told(folders, "not compiled: ")
        assert compiler.runs == 1

    @pytest.mark.parametrize("content", [b"", b"no package", b"PK\x05\x06" + bytes(18)])
    def test_a_damaged_package_is_made_anew(
        self, folders: Folders, compiler: Compiler, cache: Path, content: bytes
    ) -> None:
        load(folders)
        (package,) = cache.iterdir()
        package.write_bytes(content)
        assert load(folders)
        assert "it is damaged" in told(folders, "compiled anew: ")

    def test_a_library_that_does_not_fit_this_pytorch_is_made_anew(
        self, folders: Folders, compiler: Compiler
    ) -> None:
        assert load(folders)
        compiler.modules = [UnusableLibrary("undefined symbol"), lambda x: x * 2]
        assert load(folders)
        assert "undefined symbol" in told(folders, "compiled anew: ")

    def test_a_sound_package_is_kept_where_the_temporary_folder_is_at_fault(
        self, folders: Folders, compiler: Compiler, cache: Path
    ) -> None:
        compiler.modules = [OSError(28, "No space left on device")]
        assert not load(folders)
        assert "No space left on device" in told(folders, "not compiled: ")
        assert "TMPDIR" in told(folders, "not compiled: ")
        assert [file.suffix for file in cache.iterdir()] == [".pt2"]
        assert compiler.runs == 1


class TestNoPlace:
    def test_without_a_home_the_model_is_served_as_it_is_and_the_reason_told(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def homeless() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr("pathlib.Path.home", homeless)
        assert not load(folders)
        assert "XDG_CACHE_HOME" in told(folders, "not compiled: ")

    def test_a_cache_folder_that_cannot_be_made_is_told(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert not load(folders)
        assert "cache folder" in told(folders, "not compiled: ")

    def test_a_full_cache_folder_is_told(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*arguments: object, **more: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("batcher.models.pytorch.aoti.tempfile.TemporaryDirectory", full)
        assert not load(folders)
        assert "No space left on device" in told(folders, "not compiled: ")

    def test_whatever_else_the_compiler_raises_is_told(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*arguments: object) -> None:
            raise KeyError("getpwuid(): uid not found")

        monkeypatch.setattr("batcher.models.pytorch.aoti._run_compiler", broken)
        assert not load(folders)
        assert "uid not found" in told(folders, "not compiled: ")

    def test_a_folder_that_others_may_write_to_is_refused(self, cache: Path) -> None:
        cache.mkdir(parents=True)
        cache.chmod(0o777)
        with pytest.raises(ModelLoadError, match="others may write to it"):
            cache_folder()


class TestKey:
    def key(self, definition: ModelDefinition, **settings: Any) -> str:
        return package_key(definition, ModelSettings(**settings), CPU)

    def test_a_change_of_any_file_or_of_the_threads_makes_another_package(
        self, folders: Folders
    ) -> None:
        definition = folders.python(SOURCE)
        keys = {self.key(definition, torch_threads=1), self.key(definition, torch_threads=2)}
        assert self.key(definition, torch_threads=1, max_batch_size=7) in keys
        (definition.folder / "helper.py").write_text("WIDTH = 4")
        keys.add(self.key(definition, torch_threads=1))
        (definition.folder / "helper.py").write_text("WIDTH = 5")
        keys.add(self.key(definition, torch_threads=1))
        assert len(keys) == 4

    def test_another_pytorch_makes_another_package(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        definition = folders.python(SOURCE)
        before = self.key(definition)
        monkeypatch.setattr("torch.version.git_version", "another")
        assert self.key(definition) != before

    def test_another_processor_makes_another_package(
        self, folders: Folders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        definition = folders.python(SOURCE)
        before = self.key(definition)
        monkeypatch.setattr("batcher.models.pytorch.aoti_packages._machine", lambda _: ["sse2"])
        assert self.key(definition) != before

    def test_nothing_but_the_files_counts(self, folders: Folders) -> None:
        definition = folders.python(SOURCE)
        before = self.key(definition, torch_threads=1)
        os.utime(definition.folder / "code.py", (1, 1))
        (definition.folder / "__pycache__").mkdir()
        (definition.folder / "__pycache__" / "code.pyc").write_bytes(b"1")
        assert self.key(definition, torch_threads=1) == before


def module_of(path: Path) -> ModuleType:
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    return module


class TestNotes:
    def test_files_from_elsewhere_are_those_of_libraries_and_of_other_folders(
        self, tmp_path: Path
    ) -> None:
        own, other = tmp_path / "own" / "code.py", tmp_path / "other.py"
        own.parent.mkdir()
        own.write_text("1")
        other.write_text("2")
        modules = [module_of(own), module_of(other), ModuleType("without_a_file")]
        modules += [torch, torch.nn, json_module(), sys.modules["batcher"], pytest]
        (own.parent / "link.py").symlink_to(other)
        modules += [module_of(own.parent / "link.py")]
        found = imported_files(modules, own.parent)
        assert set(found) == {str(other), str(Path(pytest.__file__).resolve())}

    def test_equal_weights_have_one_hash_and_the_smallest_change_makes_another(self) -> None:
        module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        before = weights_digest(module)
        again = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        assert weights_digest(again) != before
        again.load_state_dict(module.state_dict())
        assert weights_digest(again) == before
        again[1].running_mean[0] += 1e-6  # type: ignore[index, operator]  # a tensor
        assert weights_digest(again) != before

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.bool])
    def test_weights_of_every_dtype_have_a_hash(self, dtype: torch.dtype) -> None:
        module = torch.nn.Module()
        module.register_buffer("scalar", torch.zeros((), dtype=dtype))
        module.register_buffer("none", torch.zeros(0, 3, dtype=dtype))
        assert weights_digest(module)

    def test_a_package_without_notes_is_damaged(self, tmp_path: Path) -> None:
        with ZipFile(tmp_path / "p.pt2", "w") as archive:
            archive.writestr("x", "")
        assert read_notes(tmp_path / "p.pt2") is None
        notes = Notes({"/a": "1"}, "2", 3)
        notes.write(tmp_path / "p.pt2")
        assert read_notes(tmp_path / "p.pt2") == notes

    def test_a_file_that_is_gone_has_changed(self, tmp_path: Path) -> None:
        assert "has changed" in Notes({str(tmp_path / "gone"): "1"}, "", 1).mismatch("", 0)

    def test_what_is_unknown_is_not_compared(self) -> None:
        assert Notes({}, "1", 2).mismatch("", 0) == ""


def json_module() -> ModuleType:
    import json

    return json
