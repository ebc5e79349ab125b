"""From text to language models: tokenizers, counted representations, word vectors, and what is built on them."""
