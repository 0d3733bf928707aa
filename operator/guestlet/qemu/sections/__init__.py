"""The command line of QEMU, one device family per file. Pure."""
