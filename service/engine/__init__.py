"""From a request to an answer: plan, user history, batching, explanation."""
