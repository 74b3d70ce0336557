"""Training on scenes: pictures of a moving world by several cameras, with their depth and the ways of their points."""
