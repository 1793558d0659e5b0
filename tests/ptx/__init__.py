"""A PTX interpreter: runs what nvcc and Triton emit, unmodified, on numpy. See README.md."""

from .faults import Approximate, Fault, Kind, PtxError, Unsupported
from .machine import Buffer, Device
from .parse import Kernel, Module, parse
from .report import Count, Report, Traffic

__all__ = [
    "Approximate",
    "Buffer",
    "Count",
    "Device",
    "Fault",
    "Kernel",
    "Kind",
    "Module",
    "PtxError",
    "Report",
    "Traffic",
    "Unsupported",
    "parse",
]
