"""Files of PMML that would never end, or end the process: refused with what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from batcher.errors import ModelLoadError
from batcher.models.pmml.frame import texts
from tests.models.pmml.test_pmml import X, linear, schema, served, write
from tests.support.model_folders import Folders
from tests.support.model_folders import folders as folders


def test_expressions_beyond_the_stack_are_refused(folders: Folders, tmp_path: Path) -> None:
    one = '<Constant dataType="double">1</Constant>'
    deep = '<Apply function="+">' * 2000 + X + f"{one}</Apply>" * 2000
    with pytest.raises(ModelLoadError, match="not too deep inside each other; got more levels"):
        served(folders, write(tmp_path, linear(deep)))


def test_a_field_that_needs_itself_is_named(folders: Folders, tmp_path: Path) -> None:
    fields = "".join(
        f'<DerivedField name="{name}" dataType="double" optype="continuous">'
        f'<FieldRef field="{other}"/></DerivedField>'
        for name, other in (("a", "b"), ("b", "a"))
    )
    model = (
        f'<RegressionModel functionName="regression">{schema("y")}<LocalTransformations>{fields}'
        '</LocalTransformations><RegressionTable intercept="0"><NumericPredictor name="a" '
        'coefficient="1"/></RegressionTable></RegressionModel>'
    )
    with pytest.raises(ModelLoadError, match="got DerivedField 'a', which needs itself"):
        served(folders, write(tmp_path, model))


def test_infinity_is_a_text_as_well() -> None:
    assert texts(np.array([np.inf, -np.inf, 2.0, np.nan])).tolist() == ["inf", "-inf", "2", None]
