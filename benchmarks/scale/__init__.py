"""Large shops: from exports to counts, and the arithmetic of sizing."""
