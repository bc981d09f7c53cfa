"""How a model writes, beside how texts really go on."""
