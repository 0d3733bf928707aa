"""Changes of a running machine: from an edited spec to QMP commands, each of which may be the agent's last. Pure."""
