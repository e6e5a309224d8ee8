"""What holds for the whole tree: layers, size of the trusted base, built objects."""
