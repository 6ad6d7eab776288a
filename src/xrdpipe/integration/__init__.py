"""From oriented frames to 1D patterns; pyFAI owns the geometry and the splitting."""
