"""The controller's decisions: which node runs a guest, and which node is lost."""
