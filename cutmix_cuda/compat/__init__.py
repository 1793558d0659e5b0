"""Drop-in replacements for the transforms of other packages, a module each; only a module imports its package.

========================================= ==============================================
:mod:`cutmix_cuda.compat.torchvision`     ``torchvision.transforms.v2.CutMix``, ``MixUp``
:mod:`cutmix_cuda.compat.timm`            ``timm.data.Mixup``
========================================= ==============================================
"""
