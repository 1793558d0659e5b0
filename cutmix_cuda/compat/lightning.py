"""Mixing as a callback of Lightning, whether it is installed as ``lightning`` or as ``pytorch_lightning``."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

from torch import nn

try:
    from lightning.pytorch import Callback
except ImportError:
    from pytorch_lightning import Callback

_STATES = "cutmix_cuda"  # where a checkpoint holds the states of the callbacks


class MixCallback(Callback):
    """Mixes each batch of training, on its device; those of validation and testing stay as they are.

    >>> from lightning.pytorch import Trainer
    >>> trainer = Trainer(callbacks=[MixCallback(CutMix(num_classes=1000, seed=0))])

    A batch is a list, as torch's ``default_collate`` makes it, or a dict, in which images and labels are replaced; the
    rest stays. Counted seeds (``seed=``) are saved in the trainer's checkpoints and go on from there. A trainer may
    have several of these callbacks, which mix one after the other; a checkpoint knows them by their order.

    Args:
        mix: what mixes, called as ``mix(images, labels)``: ``CutMix``, ``Mix``, a transform of
            :mod:`cutmix_cuda.compat`, or any other function that returns two things.
        images: where in a batch the images are: a position in a list, or a key of a dict.
        labels: where the labels are, which become the targets.

    Raises:
        TypeError: a batch is neither a list nor a dict: in a tuple nothing can be replaced.
        ValueError: a batch has nothing where images or labels are to be.
    """

    def __init__(
        self, mix: Callable[[Any, Any], tuple[Any, Any]], *, images: int | str = 0, labels: int | str = 1
    ) -> None:
        self.mix = mix
        self.images: Any = images
        self.labels: Any = labels

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if not isinstance(batch, (list, MutableMapping)):
            raise TypeError(f"a batch must be a list or a dict to be mixed, got {type(batch).__name__}")
        places: Any = range(len(batch)) if isinstance(batch, list) else batch
        if self.images not in places or self.labels not in places:
            raise ValueError(
                f"a batch must have images at {self.images!r} and labels at {self.labels!r}, got "
                f"{type(batch).__name__} with {', '.join(map(repr, places))}; give MixCallback images= and labels="
            )
        batch[self.images], batch[self.labels] = self.mix(batch[self.images], batch[self.labels])

    # Not state_dict, by which a trainer tells callbacks apart by their class alone and refuses a second one.

    def on_save_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        if isinstance(self.mix, nn.Module):
            checkpoint.setdefault(_STATES, {})[self._position(trainer)] = self.mix.state_dict()

    def on_load_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        state = checkpoint.get(_STATES, {}).get(self._position(trainer))
        if isinstance(self.mix, nn.Module) and state is not None:
            self.mix.load_state_dict(state)

    def _position(self, trainer) -> int:
        """Which of the trainer's callbacks of this class it is."""
        return [callback for callback in trainer.callbacks if isinstance(callback, MixCallback)].index(self)
