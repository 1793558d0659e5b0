"""What is wrong with an argument, in words: each error names the argument, what came, and what is valid.

Everything is checked before anything is written. Values are looked at on the CPU only: on a GPU that would make the
host wait, so there the kernels guard themselves and answer with NaN targets (see csrc/targets.h).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from enum import IntEnum
from typing import TypeVar

import torch
from torch import Tensor

from ._ops import BLENDED_DTYPES, INVERSE_OF_THEMSELVES, Partner
from ._tensors import is_example, wraps_another
from ._tv_tensors import is_tv_tensor

_Choice = TypeVar("_Choice", bound=IntEnum)

INTEGER_DTYPES = (  # the usual one first, which is found first
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint64,
    torch.uint32,
    torch.uint16,
    torch.uint8,
)
FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_IMAGE_DIMS = 8
MAX_BATCH = 2**30
MAX_INT32 = 2**31 - 1


def _names(values: object) -> str:
    return ", ".join(str(value).removeprefix("torch.") for value in values)  # type: ignore[attr-defined]


_count_modes = torch._C._len_torch_dispatch_stack
_TRACING_MODES = tuple(getattr(torch._C._TorchDispatchModeKey, name) for name in ("FAKE", "PROXY", "FUNCTIONAL"))


def has_memory(tensor: Tensor) -> bool:
    """Whether a tensor is memory with values, and not what a tracer or torch.func puts in its place."""
    if tensor.is_meta or torch.compiler.is_compiling() or is_example(tensor) or wraps_another(tensor):
        return False
    modes = _count_modes() > 0
    return not (modes and any(torch._C._get_dispatch_mode(mode) is not None for mode in _TRACING_MODES))


def runs_at_once(tensor: Tensor) -> bool:
    """Whether an op on a tensor runs now and on its memory: no tracer and no transform of torch.func is in between."""
    return has_memory(tensor) and torch._C._functorch.peek_interpreter_stack() is None


def has_values(tensor: Tensor) -> bool:
    """Whether the values of a tensor may be looked at: on a GPU that would make the host wait."""
    return tensor.is_cpu and has_memory(tensor)


def check_choice(name: str, value: str, choices: type[_Choice]) -> _Choice:
    """The member of an enumeration by its name."""
    try:
        return choices[value]
    except (KeyError, TypeError):
        valid = ", ".join(repr(choice.name) for choice in choices)
        raise ValueError(f"{name} must be one of {valid}, got {value!r}") from None


def _is_number(value: object) -> bool:
    # Asking the exact types first saves a third of a microsecond a question.
    return type(value) in (float, int) or (isinstance(value, numbers.Real) and not isinstance(value, bool))


def _is_int(value: object) -> bool:
    return type(value) is int or (isinstance(value, (numbers.Integral, torch.SymInt)) and not isinstance(value, bool))


def check_share(name: str, value: float) -> float:
    """A number in [0, 1]."""
    if not _is_number(value):
        raise TypeError(f"{name} must be a number in [0, 1], got {value!r}")
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")
    return float(value)


def check_number(name: str, value: float) -> float:
    """Any number; infinity for one beyond float64."""
    if not _is_number(value):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:  # of an int or a fraction
        return math.inf


def check_positive(name: str, value: float) -> float:
    """A number that is positive and finite."""
    if not _is_number(value):
        raise TypeError(f"{name} must be a positive, finite number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:  # of an int or a fraction
        number = math.inf
    if not 0.0 < number < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return number


def check_size(name: str, value: int, most: int) -> int:
    """A whole number that is neither negative nor too large."""
    if not _is_int(value):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, got {value}")
    return value


def check_extent(height: int, width: int) -> tuple[int, int]:
    """Height and width of images, of which int32 counts the pixels."""
    height, width = check_size("height", height, MAX_INT32), check_size("width", width, MAX_INT32)
    check_size("height * width", height * width, MAX_INT32)
    return height, width


def check_target_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    if dtype not in FLOAT_DTYPES:
        raise ValueError(f"{name} must be one of {_names(FLOAT_DTYPES)}, got {dtype!r}")
    return dtype


def check_dense(name: str, tensor: Tensor) -> None:
    """Raises unless the tensor is memory with strides, neither nested nor sparse."""
    if tensor.is_nested:  # some of them call their layout strided as well
        raise TypeError(
            f"{name} must be a dense tensor, got a nested one; torch.nested.to_padded_tensor makes it dense"
        )
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor (layout torch.strided), got {tensor.layout}")


def check_images(images: Tensor, name: str = "images") -> None:
    """Raises unless images is a plain dense tensor (batch, ..., height, width) without autograd."""
    if not isinstance(images, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(images).__name__}")
    check_dense(name, images)
    if images.is_quantized:
        raise TypeError(f"{name} must not be quantized, got {images.dtype}; pass {name}.int_repr()")
    if not 3 <= images.dim() <= MAX_IMAGE_DIMS:
        raise ValueError(
            f"{name} must have 3 to {MAX_IMAGE_DIMS} dimensions, (batch, ..., height, width), "
            f"got shape {tuple(images.shape)}"
        )
    shape = images.shape
    if shape[0] > MAX_BATCH or shape[-2] * shape[-1] > MAX_INT32:
        raise ValueError(
            f"{name} must be at most {MAX_BATCH}, of at most {MAX_INT32} pixels (height times width), "
            f"got shape {tuple(images.shape)}"
        )
    if images.requires_grad:
        raise ValueError(
            f"{name} must not require grad, because mixing images has no autograd formula; pass {name}.detach(), or "
            "mix features by cutmix_cuda.mix_features, which has gradients"
        )


def check_blends(images: Tensor) -> None:
    """Raises unless mixup can blend the images."""
    if is_tv_tensor(images, "Mask"):
        raise TypeError(
            "images must not be a tv_tensors.Mask for mixup, because two classes have no mean; mix_images takes it for "
            "labels, and a mask whose values are intensities may be passed as images.as_subclass(torch.Tensor)"
        )
    if images.dtype not in BLENDED_DTYPES:
        raise TypeError(
            f"images must be of dtype {_names(BLENDED_DTYPES)} for mixup, got {images.dtype}, whose values have no "
            "mean (of masks, see mix_images with labels=True)"
        )


def check_labels_tensor(labels: Tensor, name: str = "labels") -> None:
    """Raises unless labels are a tensor of samples."""
    if not isinstance(labels, Tensor):
        raise TypeError(f"{name} must be a tensor or None, got {type(labels).__name__}")
    check_dense(name, labels)
    if labels.dim() == 0:
        raise ValueError(
            f"{name} must be integers of shape (batch,) or floats of shape (batch, num_classes), got {labels.dtype} of "
            f"shape {tuple(labels.shape)}"
        )


def check_labels(
    labels: Tensor | None,
    num_classes: int | None,
    batch: int,
    device: torch.device,
    *,
    any_class: bool = False,
    differentiable: bool = False,
    op_looks: bool = False,
    name: str = "labels",
) -> int:
    """The number of classes, after every check of labels against it, the batch size and the device.

    any_class: class indices need no num_classes, without which they only must not be negative; 0 is returned for it.
    differentiable: soft labels may require grad.
    op_looks: the values of class indices are left to the op.
    """
    if labels is None:
        if num_classes is not None:
            check_num_classes(num_classes)
        return 0
    check_labels_tensor(labels, name)
    if labels.dtype in INTEGER_DTYPES:
        if labels.dim() != 1:
            instead = "labels.argmax(dim=1)" if any_class else "labels.float()"
            raise ValueError(
                f"integer labels must be of shape (batch,) = ({batch},), got {tuple(labels.shape)}; if they are "
                f"one-hot pass {instead}"
            )
        if num_classes is not None:
            check_num_classes(num_classes)
        elif not any_class:
            raise ValueError("num_classes must be given with integer labels, got None")
    elif labels.dtype in FLOAT_DTYPES:
        if labels.dim() != 2:
            raise ValueError(
                f"float labels must be of shape (batch, num_classes), got {labels.dtype} of shape "
                f"{tuple(labels.shape)}; class indices must be of an integer dtype"
            )
        if num_classes is not None:
            check_num_classes(num_classes)
            if num_classes != labels.shape[1]:
                raise ValueError(
                    f"num_classes must be the number of columns of soft labels, {labels.shape[1]}, got {num_classes}"
                )
        num_classes = labels.shape[1]
        if labels.requires_grad and not differentiable:
            raise ValueError(
                f"{name} must not require grad, because mixing images has no autograd formula; pass {name}.detach(), "
                "or mix them by cutmix_cuda.mix_targets, which has gradients"
            )
    else:
        raise TypeError(
            f"{name} must be class indices of dtype {_names(INTEGER_DTYPES)}, or soft labels of dtype "
            f"{_names(FLOAT_DTYPES)}, got {labels.dtype}"
        )
    if labels.shape[0] != batch:
        raise ValueError(f"{name} must have one entry a sample, {batch}, got {labels.shape[0]}")
    if labels.device != device:
        raise ValueError(f"{name} must be on the device of the images, {device}, got {labels.device}")
    if labels.dim() == 1 and not op_looks:
        check_range(name, labels, num_classes)
    return 0 if num_classes is None else num_classes


def check_num_classes(num_classes: int) -> None:
    """A positive whole number."""
    if not _is_int(num_classes):
        raise TypeError(f"num_classes must be an int, got {num_classes!r}")
    if num_classes <= 0:
        raise ValueError(f"num_classes must be positive, got {num_classes}")
    if num_classes > MAX_INT32:
        raise ValueError(f"num_classes must be at most {MAX_INT32}, got {num_classes}")


_FEW = 64  # so many labels are looked at faster by Python than by torch


def check_range(name: str, labels: Tensor, num_classes: int | None) -> None:
    """Every class index in 0..num_classes-1, or just not negative. Looks where there are values, and on the CPU."""
    if not has_values(labels):
        return
    count = labels.numel()
    if count == 0:
        return
    if count <= _FEW:
        values = labels.tolist()
        low, high = min(values), max(values)
    else:
        low, high = (extreme.item() for extreme in torch.aminmax(_signed(labels)))
    most = 2**63 - 1 if num_classes is None else num_classes - 1
    if low < 0 or high > most:
        signed = _signed(labels)
        bad = int(((signed < 0) | (signed > most)).nonzero()[0])
        valid = "not be negative" if num_classes is None else f"be in 0..{most} (num_classes={num_classes})"
        raise ValueError(f"{name} must {valid}, got {labels.tolist()[bad]} for sample {bad}")


def _signed(labels: Tensor) -> Tensor:
    """Class indices of a dtype that torch has aminmax and comparisons for."""
    if labels.dtype in (torch.uint16, torch.uint32):
        return labels.long()
    # Past 2^63 it reads as negative, and is as far outside.
    return labels.view(torch.int64) if labels.dtype == torch.uint64 else labels


def check_own_inverse(partner: int) -> None:
    """Raises unless samples exchange pixels in pairs under a partner map, as mixing in place needs."""
    if partner not in INVERSE_OF_THEMSELVES:
        raise ValueError(
            f"partner must be its own inverse to mix in place: 'flip' or 'mirror', got {Partner(partner).name!r}; "
            "mix out of place for the others"
        )


def check_in_place(images: Tensor, partner: int | None = None) -> None:
    """Raises unless images can be mixed in place (with a sampled partner map, if given)."""
    if partner is not None:
        check_own_inverse(partner)
    _check_writable("images", images)
    if may_overlap_itself(images):
        raise ValueError(
            f"images must not overlap themselves in memory to be mixed in place, got shape {tuple(images.shape)} with "
            f"strides {images.stride()} (an expanded view?); pass images.contiguous()"
        )


def _check_writable(name: str, tensor: Tensor) -> None:
    if not torch.compiler.is_compiling() and (tensor.is_conj() or tensor.is_neg()):
        raise ValueError(
            f"{name} must not be a lazy conjugate or negative view to be written to; pass what it is a view of, or "
            f"{name}.resolve_conj().resolve_neg()"
        )


def may_overlap_itself(tensor: Tensor) -> bool:
    """Whether two elements of a tensor may share memory, by its strides."""
    if not has_memory(tensor) or tensor.is_contiguous() or tensor.numel() == 0:
        return False
    reach = 0  # elements that the dimensions of smaller stride lead ahead
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


def _memory_of(tensor: Tensor) -> tuple[int, int]:
    """First and one past the last byte."""
    if tensor.is_contiguous():
        return tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    reach = sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (reach + 1) * tensor.element_size()


def overlap(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors that are memory may share some, by their first and last bytes."""
    begin, end = _memory_of(one)
    other_begin, other_end = _memory_of(other)
    return begin < other_end and other_begin < end


def check_out(out: Tensor, images: Tensor, dtype: torch.dtype | None = None) -> None:
    """Raises unless out can take the mixed images, as they are or of another dtype."""
    check_out_like(out, images, dtype, images.shape)
    check_apart(out, images, "images")


def check_out_like(out: Tensor, images: Tensor, dtype: torch.dtype | None, shape: Sequence[int]) -> None:
    """Raises unless out can be written, and is of a shape, on the device of images, and of a dtype or theirs."""
    if not isinstance(out, Tensor):
        raise TypeError(f"out must be a tensor, got {type(out).__name__}")
    check_dense("out", out)
    if dtype is not None and out.dtype != dtype:
        raise ValueError(f"out must have the dtype asked for, {dtype}, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have the shape of images, {shape}, got {out.shape}")
    for name in ("device",) if dtype is not None else ("dtype", "device"):
        given, wanted = getattr(out, name), getattr(images, name)
        if given != wanted:
            raise ValueError(f"out must have the {name} of images, {wanted}, got {given}")
    if out.requires_grad:
        raise ValueError("out must not require grad, because mixing has no autograd formula; pass out.detach()")
    _check_writable("out", out)
    if has_memory(out) and may_overlap_itself(out):
        raise ValueError(f"out must not overlap itself in memory, got strides {out.stride()} (an expanded view?)")


def check_apart(written: Tensor, read: Tensor, name: str, *, written_name: str = "out") -> None:
    """Raises if what is written, out or the images, overlaps what is read for it."""
    if not (has_memory(read) and has_memory(written)) or read.numel() == 0 or written.numel() == 0:
        return
    if overlap(written, read):
        in_place = "to mix in place use a function whose name ends in an underscore, or inplace=True"
        raise ValueError(
            f"{written_name} must not overlap {name} in memory; "
            f"{in_place if written_name == 'out' else f'pass a copy of {name}'}"
        )
