"""PCI addresses as recorded facts: placed once, kept for ever. Pure."""
