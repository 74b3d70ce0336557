"""Scenes in space: one picture and the path of a camera to Gaussians that move, and what cameras see of them."""
