"""The models of 2017 and 2018: Transformer, mixture of experts, AWD-LSTM, ELMo, GPT, BERT."""
