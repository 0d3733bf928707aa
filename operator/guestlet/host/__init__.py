"""The only effects on the node: processes, sockets, images, networks. Knows devices, not intentions."""
