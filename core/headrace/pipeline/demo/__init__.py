"""`headrace demo`: the main job on real input, ended by a reckoning."""
