"""Recurrent predictors: one frame after the other, with a memory."""
