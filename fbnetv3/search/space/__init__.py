"""Search spaces: variables, constraints, encodings, candidate pools."""
