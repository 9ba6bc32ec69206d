"""How things look: one table in text and HTML, in place while a person watches, once when nobody does."""
