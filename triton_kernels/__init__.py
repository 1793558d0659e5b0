"""The ops in Triton: compiled when first used, for machines without a compiler. Installed as part of cutmix_cuda.

``OPS`` are the implementations of the schemas in ``cutmix_cuda/_ops.py``; ``INTERPRETED`` says whether they run on CPU
tensors, which is so under ``TRITON_INTERPRET=1``.
"""

if not __package__ or "." not in __package__:
    raise ImportError("these kernels are a part of cutmix_cuda: import cutmix_cuda.triton_kernels")

try:
    import triton
    import triton.language
except ImportError as error:
    raise ImportError(f"triton cannot be imported ({error}); pip install triton") from error

from .mix import OPS

INTERPRETED: bool = triton.knobs.runtime.interpret

__all__ = ["INTERPRETED", "OPS"]
