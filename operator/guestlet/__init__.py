"""guestlet: a node agent and a controller that run QEMU guests described by Kubernetes custom resources."""
