"""Networks: staged backbones, classifier heads, and building them by name."""

from __future__ import annotations

from longtailed.nn.backbone import Backbone, DataConfig
from longtailed.nn.cifar_densenet import CIFAR_DENSENETS, CifarDenseNet
from longtailed.nn.cifar_resnet import CIFAR_RESNETS, CifarResNet
from longtailed.nn.cifar_resnext import CIFAR_RESNEXTS, CifarResNeXt
from longtailed.nn.heads import HEADS, CosineHead, LinearHead
from longtailed.nn.network import Network, build_network, list_networks
from longtailed.nn.projection import ProjectionHead
from longtailed.nn.timm_backbone import TimmBackbone

__all__ = [
    "CIFAR_DENSENETS",
    "CIFAR_RESNETS",
    "CIFAR_RESNEXTS",
    "HEADS",
    "Backbone",
    "CifarDenseNet",
    "CifarResNeXt",
    "CifarResNet",
    "CosineHead",
    "DataConfig",
    "LinearHead",
    "Network",
    "ProjectionHead",
    "TimmBackbone",
    "build_network",
    "list_networks",
]
