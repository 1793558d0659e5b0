"""The strings that arguments take, as types. A test holds them to the enumerations and checks behind them."""

from __future__ import annotations

from typing import Literal

ScopeName = Literal["sample", "pair", "batch"]
PartnerName = Literal["mirror", "shift", "roll", "flip"]
PlacementName = Literal["clip", "inside"]
TargetsName = Literal["dense", "pairs"]
BackendName = Literal["cuda", "triton", "cpu", "reference"]
EraseValueName = Literal["channel", "pixel"]
EraseOrderName = Literal["before", "after"]
LayoutName = Literal["NCHW", "NHWC"]
ReductionName = Literal["mean", "sum", "none"]
