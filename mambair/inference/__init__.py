"""Networks applied to images: whole or in tiles, by the memory there is, one or many, of any kind."""
