"""Tables as papers print them: to be quoted beside own numbers, never mixed with them."""
