"""Data sets in others' formats become items.jsonl and interactions.csv; RecBole's atomic files also the other way."""
