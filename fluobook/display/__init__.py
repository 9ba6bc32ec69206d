"""Display: tables in text and HTML, updated in place while somebody watches, and shown once when nobody does."""
