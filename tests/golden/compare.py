"""Compare outputs with those of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor


def assert_outputs(case: Mapping[str, Any], outputs: Mapping[str, Tensor], tolerance: float = 1e-4) -> None:
    """Every recorded output has its shape and, to ``tolerance`` of its standard deviation, its 24 values."""
    for name, expected in case["outputs"].items():
        assert list(outputs[name].shape) == expected["shape"], name
        values = outputs[name].detach().flatten().numpy()[expected["index"]]
        np.testing.assert_allclose(values, expected["value"], rtol=0, atol=tolerance * expected["std"], err_msg=name)
