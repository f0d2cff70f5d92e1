"""Parts of a model that are still in training mode: a note says which, since the answers do not."""

from __future__ import annotations

import pytest

from tests.support.model_folders import Folders

NET = "torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout())"
PREDICT = """
    def predict(self, inputs):
        return self.net(torch.from_numpy(inputs["x"])).detach()
"""


def with_net(lines: str, base: str = "") -> str:
    """Return the source of a class whose `__init__` has `lines`."""
    return f"class Model{base}:\n    def __init__(self):\n        {lines}\n"


MODULE = "(torch.nn.Module)"
SCRIPT = f"torch.jit.script({NET})"

IN_TRAINING = {
    "a class": with_net(f"self.net = {NET}") + PREDICT,
    "a list of a class": with_net(f"self.nets = [{NET}]")
    + PREDICT.replace("self.net", "self.nets[0]"),
    "an object of a class": (
        "class Inner:\n    net = None\n\n"
        + with_net(f"self.inner = Inner(); self.inner.net = {NET}")
        + PREDICT.replace("self.net", "self.inner.net")
    ),
    "TorchScript of a class": with_net(f"self.net = {SCRIPT}") + PREDICT,
    "a list of a module": with_net(f"super().__init__(); self.nets = [{NET}]", MODULE)
    + "\n    def forward(self, x):\n        return self.nets[0](x)\n",
    "a module that stays as it is": with_net(f"super().__init__(); self.net = {NET}", MODULE)
    + "\n    def eval(self):\n        return self\n"
    + "\n    def forward(self, x):\n        return self.net(x)\n",
}

IN_EVALUATION = {
    "a class": with_net(f"self.net = {NET}.eval()") + PREDICT,
    "TorchScript of a class": with_net(f"self.net = {SCRIPT}.eval()") + PREDICT,
    "a class that says so for each batch": with_net(f"self.net = {NET}")
    + PREDICT.replace("return", "self.net.eval()\n        return"),
    "a module": with_net(f"super().__init__(); self.net = {NET}", MODULE)
    + "\n    def forward(self, x):\n        return self.net(x)\n",
    "nothing that differs": with_net("self.net = torch.nn.Linear(4, 4)") + PREDICT,
    "a dropout of nothing": with_net("self.net = torch.nn.Dropout(0.0)") + PREDICT,
    "what cannot be looked into": (
        "class Model:\n    __slots__ = ('net',)\n    def __init__(self): self.net = "
        f"torch.nn.Identity()\n{PREDICT}"
    ),
}


@pytest.mark.parametrize("source", IN_TRAINING.values(), ids=IN_TRAINING)
def test_parts_in_training_mode_are_noted_with_the_mend(folders: Folders, source: str) -> None:
    # Of one row alone PyTorch refuses to compute a variance.
    folders.load(folders.python(source), warmup=False)
    (note,) = [line for line in folders.progress if "training mode" in line]
    assert note.startswith("note: in training mode: Model")
    assert "(BatchNorm1d, Dropout)" in note
    assert "call `.eval()` of it before the first batch" in note


@pytest.mark.parametrize("source", IN_EVALUATION.values(), ids=IN_EVALUATION)
def test_parts_in_evaluation_mode_are_not_noted(folders: Folders, source: str) -> None:
    folders.load(folders.python(source))
    assert [line for line in folders.progress if "training mode" in line] == []
