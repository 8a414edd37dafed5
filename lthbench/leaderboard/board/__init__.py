"""The board: its ledger, its entries, their ranks and standings."""
