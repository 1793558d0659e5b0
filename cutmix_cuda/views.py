"""Views: what each sample of a batch looks like before it is mixed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import _validation, reference_augment
from ._ops import COLOUR_ROWS, QUADRUPLE
from ._serialization import register
from ._tensors import of_class, plain


@dataclass(frozen=True, eq=False)
class Views:
    """How the samples of a batch are flipped, shifted, coloured and erased.

    >>> views = Views.make(4, 16, 16, flip=torch.tensor([True, False, True, False]))
    >>> masks = views.apply(torch.randint(5, (4, 16, 16)), fill=255)

    Returned by :class:`cutmix_cuda.Augment` with ``return_plan=True``, drawn by :func:`cutmix_cuda.sample_views`, or
    made by hand with :meth:`make`. The named parts are views of ``packed``. A sample is shifted first and then
    flipped, as by torchvision's ``RandomCrop(size, padding)`` and ``RandomHorizontalFlip``; its erased boxes are where
    they appear in the output.

    Attributes:
        packed: int32 (B, 1 + E, 4) for E boxes a sample: flip, dy, dx, 0; and y0, x0, y1, x1 of each box. Where samples
            are coloured (B, 4 + E, 4), and the last three rows are a matrix, as bits of float32.
        height: pixels, of the images the views were made for.
        width: pixels.
        coloured: whether samples are.
    """

    packed: Tensor
    height: int
    width: int
    coloured: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.packed, Tensor):
            raise TypeError(f"packed must be a tensor, got {type(self.packed).__name__}")
        shape, least = tuple(self.packed.shape), 1 + COLOUR_ROWS * self.coloured
        if self.packed.dtype != torch.int32 or len(shape) != 3 or shape[1] < least or shape[2] != QUADRUPLE:
            raise ValueError(
                f"packed must be int32 of shape (batch, {least} + boxes, {QUADRUPLE}), "
                f"got {self.packed.dtype} of shape {shape}"
            )
        _validation.check_extent(self.height, self.width)
        object.__setattr__(self, "packed", plain(self.packed))

    @classmethod
    def _unchecked(cls, packed: Tensor, height: int, width: int, coloured: bool = False) -> Views:
        views = object.__new__(cls)
        for name, part in (("packed", packed), ("height", height), ("width", width), ("coloured", coloured)):
            object.__setattr__(views, name, part)
        return views

    def __reduce__(self) -> tuple[object, ...]:
        return Views, (self.packed, self.height, self.width, self.coloured)  # so that what is loaded is checked again

    def __len__(self) -> int:
        return self.packed.shape[0]

    @property
    def flip(self) -> Tensor:
        """bool (B,): whether the sample is mirrored left-right."""
        return self.packed[:, 0, 0] != 0

    @property
    def offset(self) -> Tensor:
        """int32 (B, 2): dy, dx, the pixel of the sample that its shifted corner (0, 0) shows; 0 outside the image."""
        return self.packed[:, 0, 1:3]

    @property
    def erased(self) -> Tensor:
        """int32 (B, E, 4): y0, x0, y1, x1 in pixels of the output, half open; empty where nothing is erased."""
        return self.geometry_and_boxes[:, 1:]

    @property
    def colour(self) -> Tensor | None:
        """float32 (B, 3, 4): the matrix by which red, green, blue and 1 become red, green and blue, in units of the
        images' range; None where samples are not coloured."""
        return reference_augment.parted(self.packed, self.coloured)[1]

    @property
    def geometry_and_boxes(self) -> Tensor:
        """packed without the colours, int32 (B, 1 + E, 4)."""
        return reference_augment.parted(self.packed, self.coloured)[0]

    @property
    def device(self) -> torch.device:
        return self.packed.device

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Views:
        """The views on another device."""
        return Views(self.packed.to(device, non_blocking=non_blocking), self.height, self.width, self.coloured)

    @classmethod
    def make(
        cls,
        batch_size: int,
        height: int,
        width: int,
        *,
        flip: Tensor | None = None,
        offset: Tensor | None = None,
        colour: Tensor | None = None,
        erased: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> Views:
        """Views made by hand; without arguments every sample is seen as it is.

        Args:
            batch_size: samples.
            height: pixels.
            width: pixels.
            flip: bool (B,).
            offset: integers (B, 2), dy in -height..height and dx in -width..width.
            colour: float32 (B, 3, 4), matrices as those of :func:`cutmix_cuda.augment`; of any numbers.
            erased: integers (B, E, 4), y0, x0, y1, x1 inside the image.
            device: where the views are to be; by default where the first of the tensors is, or the CPU.

        Returns:
            :class:`Views` of the batch.

        Raises:
            TypeError, ValueError: a dtype or shape is wrong, or, on the CPU, something leads outside the image. On a
                GPU, where looking would make the host wait, such a sample is seen as it is, and its target is NaN.
        """
        _validation.check_size("batch_size", batch_size, _validation.MAX_BATCH)
        parts = {"flip": (flip, (batch_size,)), "offset": (offset, (batch_size, 2)), "erased": (erased, None)}
        for name, (tensor, shape) in parts.items():
            if tensor is None:
                continue
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
            if tensor.is_floating_point() or tensor.is_complex() or (tensor.dtype == torch.bool) != (name == "flip"):
                wanted = "bool" if name == "flip" else "an integer dtype"
                raise TypeError(f"{name} must be of {wanted}, got {tensor.dtype}")
            good = tuple(tensor.shape) == shape if shape else tensor.dim() == 3 and tensor.shape[::2] == (batch_size, 4)
            if not good:
                valid = shape or f"({batch_size}, boxes, 4)"
                raise ValueError(f"{name} must be of shape {valid}, got {tuple(tensor.shape)}")
        given = [tensor for tensor in (flip, offset, colour, erased) if tensor is not None]
        if device is None:
            device = given[0].device if given else "cpu"

        def part(tensor: Tensor | None, *shape: int) -> Tensor:
            """Saturated, not wrapped: what leads outside the image still does as int32."""
            if tensor is None:
                return torch.zeros(shape, dtype=torch.int32, device=device)
            return plain(tensor).long().clamp(-(2**31), 2**31 - 1).to(device, torch.int32).reshape(shape)

        boxes = 0 if erased is None else erased.shape[1]
        geometry = part(flip, batch_size, 1), part(offset, batch_size, 2), part(None, batch_size, 1)
        rows = [torch.cat(geometry, dim=1)[:, None], part(erased, batch_size, boxes, QUADRUPLE)]
        if colour is not None:
            rows.append(_check_matrices("colour", colour, batch_size).to(device).view(torch.int32))
        views = cls(torch.cat(rows, dim=1), height, width, colour is not None)
        views.check()
        return views

    def check(self) -> None:
        """Raises ValueError where a view leads outside the image, if the views are on the CPU."""
        if not _validation.has_values(self.packed):
            return
        bad = ~reference_augment.valid_views(self.geometry_and_boxes, self.height, self.width)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise ValueError(
                f"views must have flip 0 or 1, offsets within -{self.height}..{self.height} and "
                f"-{self.width}..{self.width}, and boxes 0 <= y0 <= y1 <= {self.height}, "
                f"0 <= x0 <= x1 <= {self.width}; sample {row} has {self.geometry_and_boxes[row].tolist()}"
            )

    def apply(self, images: Tensor, *, fill: float = 0.0) -> Tensor:
        """Other pixels flipped and shifted alike, and not coloured or erased: masks, depth, a second camera.

        In a few operations of PyTorch. Mix them by the plan afterwards, as ``mix_images(views.apply(masks), plan)``.

        Args:
            images: (B, ..., H, W) of any dtype, of the views' height and width.
            fill: what comes in from outside the image, 255 for instance where that is a mask's class to ignore.

        Returns:
            New images of the same shape and dtype.

        Raises:
            TypeError, ValueError: images are not as described, or the views are for others.
        """
        given, images = images, plain(images)
        _validation.check_images(images)
        check_views(self, images)
        batch, height, width = images.shape[0], self.height, self.width
        slices = math.prod(images.shape[1:-2])
        moved = reference_augment.viewed(images.reshape(batch, slices, height, width), self.packed, fill)
        return of_class(moved.reshape(images.shape), given)

    def move_boxes(self, boxes: Sequence[Tensor]) -> list[Tensor]:
        """The boxes of objects flipped and shifted alike, clipped to the image.

        What has left the image has no area; :meth:`MixPlan.mix_boxes`, which comes next, drops it.

        Args:
            boxes: for each sample, floats (n, 4): x0, y0, x1, y1 in pixels.

        Returns:
            New boxes in a new list, of the same shapes and dtypes.

        Raises:
            TypeError: boxes are not float tensors.
            ValueError: there is not one tensor (n, 4) for each sample.

        The views are looked at on the CPU: where they are on a GPU, this makes the host wait.
        """
        if len(boxes) != len(self):
            raise ValueError(f"boxes must be for the {len(self)} samples of the views, got {len(boxes)}")
        moved = []
        for sample, (flip, dy, dx, _) in enumerate(self.packed[:, 0].tolist()):
            own = boxes[sample]
            if not isinstance(own, Tensor) or not own.is_floating_point():
                raise TypeError(f"boxes must be float tensors, got {own!r} for sample {sample}")
            if own.dim() != 2 or own.shape[1] != 4:
                raise ValueError(f"boxes must be of shape (n, 4), got {tuple(own.shape)} for sample {sample}")
            x0, y0, x1, y1 = (own - own.new_tensor([dx, dy, dx, dy])).unbind(1)
            if flip:
                x0, x1 = self.width - x1, self.width - x0
            x0, x1 = (x.clamp(0, self.width) for x in (x0, x1))
            y0, y1 = (y.clamp(0, self.height) for y in (y0, y1))
            moved.append(torch.stack([x0, y0, x1, y1], dim=1))
        return moved

    def __repr__(self) -> str:
        return f"Views(batch={len(self)}, height={self.height}, width={self.width}, device={str(self.device)!r})"


register(Views, ("packed", "height", "width", "coloured"), Views._unchecked)


def _check_matrices(name: str, matrices: Tensor, batch: int) -> Tensor:
    if not isinstance(matrices, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(matrices).__name__}")
    if matrices.dtype != torch.float32:
        raise TypeError(f"{name} must be of dtype float32, got {matrices.dtype}")
    if tuple(matrices.shape) != (batch, COLOUR_ROWS, QUADRUPLE):
        raise ValueError(
            f"{name} must be of shape ({batch}, {COLOUR_ROWS}, {QUADRUPLE}), a matrix for each sample, "
            f"got {tuple(matrices.shape)}"
        )
    return plain(matrices).detach().contiguous()


def check_colours(name: str, matrices: Tensor, images: Tensor) -> Tensor:
    """The matrices, contiguous, or an error that says why they do not fit the images."""
    checked = _check_matrices(name, matrices, images.shape[0])
    if checked.device != images.device:
        raise ValueError(f"{name} must be on the device of images, {images.device}, got {checked.device}")
    return checked


def check_views(views: Views, images: Tensor) -> None:
    """Raises unless the views fit the images."""
    if not isinstance(views, Views):
        raise TypeError(f"views must be Views, got {type(views).__name__}")
    batch, *_, height, width = images.shape
    if (len(views), views.height, views.width) != (batch, height, width):
        raise ValueError(
            f"views must be for {batch} images of height {height} and width {width}, got {len(views)} for "
            f"{views.height} and {views.width}"
        )
    if views.device != images.device:
        raise ValueError(
            f"views must be on the device of images, {images.device}, got {views.device}; "
            f"use views.to({str(images.device)!r})"
        )
    views.check()
