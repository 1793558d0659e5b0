"""Mixing as a callback of Lightning."""

from __future__ import annotations

from lightning.pytorch import Callback

from .. import CutMix, Mix


class MixCallback(Callback):
    """Mixes each batch of training, on its device; those of validation and testing are left alone.

    >>> from lightning.pytorch import Trainer
    >>> trainer = Trainer(callbacks=[MixCallback(CutMix(num_classes=1000, seed=0))])

    A batch is a list [images, labels], as torch's ``default_collate`` makes it; anything else raises TypeError. Counted
    seeds (``seed=``) are saved in the trainer's checkpoints and go on from there.
    """

    def __init__(self, mix: CutMix | Mix) -> None:
        self.mix = mix

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if not isinstance(batch, list) or len(batch) != 2:
            got = f"a list of {len(batch)}" if isinstance(batch, list) else type(batch).__name__
            raise TypeError(f"a batch must be a list [images, labels] to be mixed, got {got}")
        batch[:] = self.mix(*batch)

    def state_dict(self) -> dict:
        return self.mix.state_dict()

    def load_state_dict(self, state_dict: dict) -> None:
        self.mix.load_state_dict(state_dict)
