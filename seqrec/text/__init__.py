"""Item text: attributes to sentences, sentences to token ids."""
