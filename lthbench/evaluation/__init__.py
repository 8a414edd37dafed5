"""One evaluation: searches, scoring, transfer."""
