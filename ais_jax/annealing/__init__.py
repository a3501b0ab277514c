"""One annealed chain: path, moves, weights; and many chains, resampled."""
