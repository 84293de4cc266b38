"""Annotations of boxes in the formats of VOC, YOLO and Open Images, converted to COCO's."""

from __future__ import annotations
