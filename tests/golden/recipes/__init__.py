"""How each method's golden arrays are made again: `INPUTS`, and `recompute` from them."""
