"""Text from files, packages and the Hub: streams, deterministic shuffles and splits, memory-mapped token files."""

from language.data.blocks import TokenFile, write_token_file
from language.data.named import MovieReview, open_texts, read_movie_reviews
from language.data.order import shuffled, shuffled_stream, split, split_of
from language.data.parallel import read_dictionary, read_pairs_of_columns, read_parallel
from language.data.records import FileTexts, read_records, read_texts

__all__ = [
    "FileTexts",
    "MovieReview",
    "TokenFile",
    "open_texts",
    "read_dictionary",
    "read_movie_reviews",
    "read_pairs_of_columns",
    "read_parallel",
    "read_records",
    "read_texts",
    "shuffled",
    "shuffled_stream",
    "split",
    "split_of",
    "write_token_file",
]
