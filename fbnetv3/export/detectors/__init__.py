"""Export of RetinaNets, with normalisation, anchors, decoding of boxes and NMS in the graph."""
