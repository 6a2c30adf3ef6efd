"""Training: behaviour cloning and reinforcement learning as short main loops over shared parts."""
