"""At home in other packages, a module each; only a module imports its package.

========================================= =====================================================
:mod:`cutmix_cuda.compat.torchvision`     ``CutMix`` and ``MixUp`` of ``torchvision.transforms.v2``
:mod:`cutmix_cuda.compat.timm`            mixing, erasing and the loader of ``timm.data``
:mod:`cutmix_cuda.compat.lightning`       a callback for Lightning's ``Trainer``
========================================= =====================================================
"""
