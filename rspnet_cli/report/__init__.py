"""What a report is built of: HTML and SVG as text, what lies in a work directory, clips from the store, and a module per section."""
