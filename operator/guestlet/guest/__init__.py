"""One guest's life: what is wanted, what is so, what to do next."""
