"""The labelling page: people compare clips, or texts, in a browser, while the agent trains."""
