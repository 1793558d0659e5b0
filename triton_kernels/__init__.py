"""The ops in Triton: compiled when first used, for machines without a compiler. Installed as part of cutmix_cuda.

``OPS`` are the implementations of the schemas in ``cutmix_cuda/_ops.py``; ``INTERPRETED`` says whether they run on CPU
tensors, which is so under ``TRITON_INTERPRET=1``.
"""

if not __package__ or "." not in __package__:
    raise ImportError("these kernels are a part of cutmix_cuda: import cutmix_cuda.triton_kernels")

try:
    import triton

    INTERPRETED: bool = triton.knobs.runtime.interpret
    from . import adjoint_ops, augment_ops, ops, patches_ops
except Exception as error:  # whatever a missing, old or broken Triton raises: there are other backends
    raise ImportError(f"triton cannot be used: {type(error).__name__}: {error}") from error

OPS = ops.OPS | adjoint_ops.OPS | augment_ops.OPS | patches_ops.OPS

__all__ = ["INTERPRETED", "OPS"]
