"""Quality of recommendations, compared with RecBole and over simulated days."""
