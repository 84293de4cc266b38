"""Installing detectron2's Python part from a package index."""
