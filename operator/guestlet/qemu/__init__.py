"""QEMU's languages: command line, QMP commands and replies, capabilities. Pure."""
