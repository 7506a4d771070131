"""What became of recommendations: ids that events refer to, counts, comparisons of variants, and quality metrics."""
