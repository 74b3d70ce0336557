"""A latent space of clips: a causal VAE whose decoder forecasts from tokens, and generators of members in its latents."""
