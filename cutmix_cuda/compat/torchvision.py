"""``CutMix`` and ``MixUp`` of ``torchvision.transforms.v2`` 0.29 with another engine: change the import, nothing else.

>>> from cutmix_cuda.compat.torchvision import CutMix, MixUp  # was: from torchvision.transforms.v2 import CutMix, MixUp
>>> mix = v2.RandomChoice([CutMix(num_classes=1000), MixUp(num_classes=1000)])
>>> images, labels = mix(images, labels)  # (B, C, H, W), (B,) -> (B, C, H, W), (B, 1000)

Called in the same way they mix the same things. With the same box and lambda, pixels and targets are equal. The random
numbers are not torchvision's, because they come from another generator: the same seed draws another box, of the same
distribution; but in images one pixel high or wide, where torchvision's box is empty, it is a span of the other side.
``torch.manual_seed`` reproduces the numbers, on every device alike. As in torchvision, ranks that were seeded
alike draw alike; with ``seed=`` they draw apart.

A subclass may override ``make_params`` and ``transform``, torchvision's hooks: they are given and return what they are
in torchvision, and then each tensor of a sample is mixed by a launch of its own.

A sample of a wrong structure or shape fails with torchvision's own error. What else is wrong fails with this package's:
images and soft labels that require grad, which torchvision mixes; labels on another device than the images, which it
mixes too; a num_classes that is not positive, at once (torchvision takes -1 for one more than the greatest label); an
alpha, a dtype or a class index that is not valid, where torchvision's errors are those of the operations that it meets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Image as PILImage
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten  # as torchvision; torch has no public one
from torchvision import tv_tensors
from torchvision.transforms import v2

from .. import _backends, _validation
from .._literals import BackendName, PartnerName, ScopeName
from .._ops import Kind
from .._options import Settings
from .._seed import counted_seed
from ..functional import draw_plan, mix_targets, run
from ..images import mix_images
from ..plan import MixPlan

__all__ = ["CutMix", "MixUp"]


def _labels_by_name(sample: Any) -> Any:
    """The second item of a pair, or what such an item, or the sample itself, holds under a key like "labels"."""
    if isinstance(sample, (tuple, list)):
        sample = sample[1]
    if _is_pure(sample):
        return sample
    if not isinstance(sample, Mapping):
        raise ValueError(
            "When using the default labels_getter, the input passed to forward must be a dictionary or a two-tuple "
            f"whose second item is a dictionary or a tensor, but got {sample} instead."
        )
    exact = [name for name in sample if name.lower() == "labels"]
    similar = [name for name in sample if "label" in name.lower()]
    if not similar:
        raise ValueError(
            "Could not infer where the labels are in the sample. Try passing a callable as the labels_getter parameter?"
            "If there are no labels in the sample by design, pass labels_getter=None."
        )
    return sample[(exact + similar)[0]]


def _plain(image: Tensor) -> Tensor:
    """An image without its type. Not asked for where it has none, because torch.compile cannot trace that."""
    return image if type(image) is Tensor else image.as_subclass(Tensor)


def _wrapped(image: Tensor, *, like: Any) -> Any:
    """A mixed image as the type that it came as."""
    return tv_tensors.wrap(image, like=like) if isinstance(like, tv_tensors.TVTensor) else image


def _rolled_plan(
    kind: Kind, samples: Tensor, size: Sequence[int], *, lam: float, box: Sequence[int] = (0, 0, 0, 0)
) -> MixPlan:
    """A plan for a tensor of samples, all of which are mixed alike with the one before. Checked on the host."""
    batch = samples.shape[0]
    plan = MixPlan.from_boxes(
        torch.arange(batch).roll(1),
        torch.tensor(box, dtype=torch.int64).expand(batch, 4),
        *size,
        lam=torch.full((batch,), float(lam)),
        kind=torch.full((batch,), int(kind)),
    )
    return plan.to(samples.device)


def _is_pure(leaf: Any) -> bool:
    """Whether it is a tensor that torchvision gave no meaning."""
    return isinstance(leaf, Tensor) and not isinstance(leaf, tv_tensors.TVTensor)


class _BatchMix(v2.Transform):
    """What CutMix and MixUp have in common: what of a sample is the labels, what is mixed, and what passes through."""

    _lam: str  # torchvision's word for the weight of the own target
    _mixed: tuple[type, ...]
    _refused: tuple[type, ...]
    _refusal: str

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        num_classes: int | None = None,
        labels_getter: Callable[[Any], Any] | str | None = "default",
        scope: ScopeName = "batch",
        partner: PartnerName = "roll",
        label_smoothing: float = 0.0,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        backend: BackendName | None = None,
    ) -> None:
        super().__init__()
        if not (labels_getter is None or labels_getter == "default" or callable(labels_getter)):
            raise ValueError(f"labels_getter should either be 'default', a callable, or None, but got {labels_getter}.")
        if num_classes is not None:
            _validation.check_num_classes(num_classes)
        # torchvision's repr shows the public numbers and names.
        self.alpha = _validation.check_positive("alpha", alpha)
        self.num_classes = num_classes
        self.scope = scope
        self.partner = partner
        self.label_smoothing = label_smoothing
        _backends.check_backend(backend)
        self.backend = backend
        self.seeds = counted_seed(seed, generator)
        self._generator = generator
        self._labels_getter = labels_getter
        self._settings = self._settings_of(
            self.alpha,
            prob=1.0,
            scope=scope,
            partner=partner,
            placement="clip",
            correct_lam=True,
            label_smoothing=label_smoothing,
        )

    @staticmethod
    def _settings_of(alpha: float, **options: Any) -> Settings:
        raise NotImplementedError

    def forward(self, *inputs: Any) -> Any:
        """A sample of any structure -> the same structure, with images and labels mixed."""
        sample = inputs if len(inputs) > 1 else inputs[0]
        leaves, structure = tree_flatten(sample)
        if any(isinstance(leaf, self._refused) for leaf in leaves):
            raise ValueError(f"{type(self).__name__}() does not support {self._refusal}.")

        at_labels = self._find_labels(sample, leaves)
        labels = None if at_labels is None else leaves[at_labels]
        at_images = self._find_images(leaves, at_labels)
        self._check_images([leaves[at] for at in at_images], labels)

        if self._is_customised():
            self._transform_each(leaves, at_images, at_labels)
        else:
            self._mix(leaves, at_images, at_labels)
        return tree_unflatten(leaves, structure)

    def _mix(self, leaves: list[Any], at_images: list[int], at_labels: int | None) -> None:
        """Puts mixed images and targets in their places. The first image and the targets are made in one launch."""
        labels, settings = self._labels_and_settings(None if at_labels is None else leaves[at_labels])
        images = [_plain(leaves[at]) for at in at_images]
        first, targets, packed = run(
            images[0],
            labels,
            self.num_classes,
            settings,
            seed=self._next_seed(),
            generator=self._generator,
            inplace=False,
            out=None,
            backend=self.backend,
        )
        others = [mix_images(image, MixPlan(packed, *image.shape[-2:]), backend=self.backend) for image in images[1:]]
        for at, image in zip(at_images, [first, *others], strict=True):
            leaves[at] = _wrapped(image, like=leaves[at])
        if at_labels is not None:
            leaves[at_labels] = targets

    def _labels_and_settings(self, labels: Tensor | None) -> tuple[Tensor | None, Settings]:
        """Labels that may be mixed, and the dtype of their targets among the settings."""
        if labels is None or labels.ndim != 2:
            return labels, self._settings
        if not labels.is_floating_point():
            labels = labels.float()
        return labels, self._settings._replace(target_dtype=labels.dtype)

    def _next_seed(self) -> Tensor | None:
        return None if self.seeds is None else self.seeds.next()

    def _is_customised(self) -> bool:
        """Whether a hook of torchvision was overridden, in a subclass or on the instance."""
        hooks = ("make_params", "transform")
        return any(hook in vars(self) or getattr(type(self), hook) is not getattr(_BatchMix, hook) for hook in hooks)

    def _transform_each(self, leaves: list[Any], at_images: list[int], at_labels: int | None) -> None:
        """Puts in the places of images, labels and tensors of other types what the hooks make of them."""
        if (self.scope, self.partner) != ("batch", "roll"):
            raise ValueError(
                "scope must be 'batch' and partner 'roll' where make_params or transform is overridden, which speak of "
                f"one box for all samples, got {self.scope!r} and {self.partner!r}"
            )
        labels = None if at_labels is None else leaves[at_labels]
        batch_size = (leaves[at_images[0]] if labels is None else labels).shape[0]
        params = {"labels": labels, "batch_size": batch_size, **self.make_params([leaves[at] for at in at_images])}
        for at, leaf in enumerate(leaves):
            if at in at_images or at == at_labels or isinstance(leaf, tv_tensors.TVTensor):
                leaves[at] = self.transform(leaf, params)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The parameters of a call, drawn for its images, in torchvision's words. May be overridden."""
        height, width = flat_inputs[0].shape[-2:]
        plan = draw_plan(
            2,  # in a batch of one there would be nothing to mix
            height,
            width,
            self._settings,
            seed=self._next_seed(),
            generator=self._generator,
            device="cpu",
            backend=None,
        )
        return self._params_of(plan)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """A leaf of a sample, mixed by the parameters of the call. May be overridden.

        Called only where this or :meth:`make_params` is overridden: without that a sample is mixed at once.
        """
        if inpt is params["labels"]:
            labels, settings = self._labels_and_settings(inpt)
            assert labels is not None
            return mix_targets(
                labels,
                _rolled_plan(Kind.mixup, labels, (1, 1), lam=params[self._lam]),
                self.num_classes,
                label_smoothing=settings.label_smoothing,
                target_dtype=settings.target_dtype,
                backend=self.backend,
            )
        if isinstance(inpt, self._mixed) or _is_pure(inpt):
            image = _plain(inpt)
            return _wrapped(mix_images(image, self._plan_of(params, image), backend=self.backend), like=inpt)
        return inpt

    @staticmethod
    def _params_of(plan: MixPlan) -> dict[str, Any]:
        """The first row of a plan as torchvision's parameters."""
        raise NotImplementedError

    @staticmethod
    def _plan_of(params: dict[str, Any], images: Tensor) -> MixPlan:
        """A plan that mixes every image by torchvision's parameters."""
        raise NotImplementedError

    def _find_labels(self, sample: Any, leaves: list[Any]) -> int | None:
        """Where the labels are; None where there are none by design."""
        if self._labels_getter is None:
            return None
        labels = self._labels_getter(sample) if callable(self._labels_getter) else _labels_by_name(sample)
        self._check_labels(labels)
        for at, leaf in enumerate(leaves):
            if leaf is labels:
                return at
        raise ValueError("labels_getter must return a tensor of the sample itself, not a copy or a view of it")

    def _check_labels(self, labels: Any) -> None:
        if not isinstance(labels, Tensor):
            raise ValueError(f"The labels must be a tensor, but got {type(labels)} instead.")
        if labels.ndim not in (1, 2):
            raise ValueError(
                "labels should be index based with shape (batch_size,) or probability based with shape "
                f"(batch_size, num_classes), but got a tensor of shape {labels.shape} instead."
            )
        if labels.ndim == 2 and self.num_classes is not None and labels.shape[-1] != self.num_classes:
            raise ValueError(
                "When passing 2D labels, the number of elements in last dimension must match num_classes: "
                f"{labels.shape[-1]} != {self.num_classes}. You can Leave num_classes to None."
            )
        if labels.ndim == 1 and self.num_classes is None:
            raise ValueError("num_classes must be passed if the labels are index-based (1D)")

    def _find_images(self, leaves: list[Any], at_labels: int | None) -> list[int]:
        """Where the images are: all that are marked as such, or else the first unmarked tensor."""
        marked = [at for at, leaf in enumerate(leaves) if isinstance(leaf, self._mixed)]
        if any(isinstance(leaves[at], (tv_tensors.Image, tv_tensors.Video)) for at in marked):
            return marked
        unmarked = [at for at, leaf in enumerate(leaves) if _is_pure(leaf) and at != at_labels]
        return unmarked[:1] + marked

    def _check_images(self, images: list[Tensor], labels: Tensor | None) -> None:
        if not images:
            raise TypeError("No image or video was found in the sample")
        for image in images:
            if not isinstance(image, tv_tensors.Mask):
                dims = 5 if isinstance(image, tv_tensors.Video) else 4
                if image.ndim != dims:
                    raise ValueError(
                        f"Expected a batched input with {dims} dims, but got {image.ndim} dimensions instead."
                    )
            if labels is not None and image.shape[0] != labels.shape[0]:
                what = "mask" if isinstance(image, tv_tensors.Mask) else "image or video"
                raise ValueError(
                    f"The batch size of the {what} does not match the batch size of the labels: "
                    f"{image.shape[0]} != {labels.shape[0]}."
                )


class CutMix(_BatchMix):
    """CutMix (Yun et al., ICCV 2019) of a batch, called as ``torchvision.transforms.v2.CutMix``.

    Mixed are the labels, all ``tv_tensors.Image``, ``Video`` and ``Mask`` of a sample, and if there is neither image
    nor video the first tensor that is not the labels. Images are (B, C, H, W), videos (B, T, C, H, W) and masks
    (B, ..., H, W), of any dtype; all get the same box and keep dtype and memory format. The rest passes through, the
    very objects.

    Beyond torchvision: segmentation masks are mixed instead of refused; there may be no labels (labels_getter=None), or
    labels of any integer dtype; images are found behind the labels too; scope, partner, label_smoothing, seed,
    generator and backend.

    Args:
        alpha: lambda ~ Beta(alpha, alpha), as a float or an int.
        num_classes: the number of classes K, needed where labels are class indices, (B,).
        labels_getter: "default", the second item if it is a tensor, else what is found under a key like "labels" in the
            second item or in the sample; or a function of the sample that returns the labels out of it; or None, for
            a sample without labels, such as images and masks.
        scope: the "batch" has one box and lambda, as in torchvision; or each "sample" its own; or each "pair", with
            partner "mirror" or "flip". With "roll" there are no pairs, and nearly every sample has a draw of its own.
        partner: as for :func:`cutmix_cuda.cutmix`; "roll" is torchvision's, the sample before.
        label_smoothing: s in [0, 1], before mixing: y * (1 - s) + s / K.
        seed: as for :class:`cutmix_cuda.CutMix`: calls are counted, ranks and loader workers draw apart, and the count
            is in the ``state_dict``. None: each seed is drawn from the generator.
        generator: a CPU generator to draw from, instead of torch's default one. Excludes seed.
        backend: "cuda", "triton", "cpu" or "reference"; None takes the best for the device.

    Returns:
        The sample in its structure. Targets are (B, K), float32 for class indices, and of the dtype of soft labels.

    Raises:
        ValueError, TypeError: as torchvision, in its words, for the structure and the shapes of a sample; as
            :func:`cutmix_cuda.cutmix` for everything else. Images, masks and labels have to be on one device.
    """

    _lam = "lam_adjusted"
    _mixed = (tv_tensors.Image, tv_tensors.Video, tv_tensors.Mask)
    _refused = (PILImage, tv_tensors.BoundingBoxes, tv_tensors.KeyPoints)
    _refusal = "PIL images, bounding boxes and keypoints"

    @staticmethod
    def _settings_of(alpha: float, **options: Any) -> Settings:
        return Settings.of_cutmix(alpha=alpha, **options)

    @staticmethod
    def _params_of(plan: MixPlan) -> dict[str, Any]:
        y0, x0, y1, x1 = plan.boxes[0].tolist()
        return {"box": (x0, y0, x1, y1), "lam_adjusted": float(plan.lam[0])}

    @staticmethod
    def _plan_of(params: dict[str, Any], images: Tensor) -> MixPlan:
        x0, y0, x1, y1 = params["box"]
        return _rolled_plan(Kind.cutmix, images, images.shape[-2:], lam=params["lam_adjusted"], box=(y0, x0, y1, x1))

    def _check_images(self, images: list[Tensor], labels: Tensor | None) -> None:
        sizes = {tuple(v2.functional.get_size(image)) for image in images}
        if len(sizes) > 1:
            raise ValueError(f"Found multiple HxW dimensions in the sample: {_quoted(sorted(sizes))}")
        super()._check_images(images, labels)


class MixUp(_BatchMix):
    """MixUp (Zhang et al., ICLR 2018) of a batch, called as ``torchvision.transforms.v2.MixUp``.

    lam * own + (1 - lam) * partner's, of images and labels: computed in float32 (float64 images in float64) and rounded
    once to the images' dtype. Images may be uint8, which torchvision cannot mix; they round to the nearest. Masks are
    refused, because there is no mean of two class indices.

    What is mixed, the arguments and the errors are those of :class:`CutMix`, except that images may differ in size.
    """

    _lam = "lam"
    _mixed = (tv_tensors.Image, tv_tensors.Video)
    _refused = (*CutMix._refused, tv_tensors.Mask)
    _refusal = "PIL images, bounding boxes, keypoints and masks"

    @staticmethod
    def _settings_of(alpha: float, **options: Any) -> Settings:
        return Settings.of_mix(
            cutmix_alpha=None, mixup_alpha=alpha, cutout=0.0, cutout_area=0.0, switch_prob=0.0, **options
        )

    @staticmethod
    def _params_of(plan: MixPlan) -> dict[str, Any]:
        return {"lam": float(plan.lam[0])}

    @staticmethod
    def _plan_of(params: dict[str, Any], images: Tensor) -> MixPlan:
        return _rolled_plan(Kind.mixup, images, images.shape[-2:], lam=params["lam"])


def _quoted(values: Iterable[object]) -> str:
    return ", ".join(f"'{value}'" for value in values)
