"""What a user sees of records: sentences, tables, figures, a page."""
