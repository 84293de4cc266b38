"""Detectors: detectron2's meta-architectures on FBNet and ResNet backbones, in this loop.

Importing ``fbnetv3.detection.backbone`` registers the backbones; nothing is patched.
"""

from __future__ import annotations
