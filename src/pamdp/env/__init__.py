"""The environment: users, profiles, rewards, and dialogues composed of them."""
