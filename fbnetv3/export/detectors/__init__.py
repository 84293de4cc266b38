"""Export of RetinaNets: preprocessing, anchors, decoding and suppression are part of the graph."""
