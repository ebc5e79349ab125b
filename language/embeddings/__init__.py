"""Words as numbers: counted representations, word2vec, GloVe, and what can be done with the vectors."""
