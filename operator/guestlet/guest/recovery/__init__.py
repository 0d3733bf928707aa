"""A description of a running QEMU that has none, from its own answers. Pure."""
