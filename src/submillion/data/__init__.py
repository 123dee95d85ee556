"""Reading, cleaning, checking and splitting of records."""
