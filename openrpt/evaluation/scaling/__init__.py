"""How accuracy grows with training compute."""
