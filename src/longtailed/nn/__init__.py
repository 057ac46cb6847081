"""Networks: staged backbones, classifier heads, and building them by name."""

from __future__ import annotations

from longtailed.nn.backbone import Backbone, DataConfig
from longtailed.nn.cifar_resnet import CIFAR_RESNETS, CifarResNet
from longtailed.nn.heads import HEADS, CosineHead, LinearHead
from longtailed.nn.network import Network, build_network, list_networks
from longtailed.nn.projection import ProjectionHead
from longtailed.nn.timm_backbone import TimmBackbone

__all__ = [
    "CIFAR_RESNETS",
    "HEADS",
    "Backbone",
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
