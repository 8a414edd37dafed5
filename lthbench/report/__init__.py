"""The presentation of records: sentences, tables, figures, a page."""
