"""Search spaces: variables, statistics and constraints, encodings, candidate pools."""
