"""A model's writing, beside how texts really go on."""
