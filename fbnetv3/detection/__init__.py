"""Detectors: detectron2's meta-architectures with FBNet and ResNet backbones.

They are trained by the loop of ``fbnetv3.engine``. Importing ``fbnetv3.detection.backbone``
registers the FBNet backbones with detectron2, which is not patched.
"""

from __future__ import annotations
